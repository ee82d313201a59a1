"""Hours of a whole run by hand: load, training and answers over all cards, with the interval of both.

In the numbers of helpers/ranking.py: a step of 16 sequences over ARC's lengths takes 10.734 s, 18.82 % more at the slow
end. An answer is predicted to take 0.001 s per token of its question, 0.01 s per token and 0.8 s per step of decoding,
which 8 share; the questions are cut to 1024 tokens and the answers have 248.
"""

import math
from dataclasses import replace

import pytest
from helpers.ranking import FULL_SLOW, GOAL, SLOW, STEP_S
from helpers.ranking import row_of as _row
from helpers.records import cell, curve, result

from harness.analysis.candidates import candidates, judged_runs
from harness.analysis.ranking import rank_candidates
from harness.analysis.run_description import RunDescription, differences
from harness.analysis.run_hours import default_runs
from harness.analysis.verdict import verdict
from harness.records.cell import REFERENCE, Goal, Recipe
from harness.records.measurement import PredictedAnswers, from_json, to_json
from harness.records.stored import to_stored

ANSWERS = PredictedAnswers(question_token_s=0.001, answer_token_s=0.01, step_s=0.8, rows=8, log_sigma=0.1)
QUESTION_S = 1.024 + 248 * (0.01 + 0.1)  # eight at once
FACTOR = math.exp(1.96 * 0.1)


def _only(row, results=(), goal=GOAL):
    (candidate,) = candidates([row], list(results), goal)
    return candidate


def _hours(row, goal=GOAL):
    return default_runs([row], goal)[row.key]


# --- the goal's run


def test_load_training_and_predicted_answers_by_hand():
    """Two views of 400 tasks are 800 questions of 28.304 s: 6.290 h. Both intervals are of their own errors."""
    hours = _hours(_row(load_s=359.0, answering=ANSWERS))
    train, answers = 1000 * STEP_S / 3600, 800 * QUESTION_S / 3600
    assert (hours.run.scope, hours.run.dose, hours.evidence) == ("shared", 40.0, "predicted")
    assert hours.answers.mid == pytest.approx(answers) == pytest.approx(6.290, abs=1e-3)
    assert hours.mid == pytest.approx(0.1 + train + answers)
    assert hours.high == pytest.approx(0.1 + train + answers + math.hypot(train * (SLOW - 1), answers * (FACTOR - 1)))
    assert hours.low == pytest.approx(
        0.1 + train + answers - math.hypot(train * (SLOW - 1), answers * (1 - 1 / FACTOR))
    )


def test_answers_take_longer_where_the_step_took_longer_than_was_predicted():
    slow = _hours(_row(answering=ANSWERS, predicted_micro_s=0.5))
    assert slow.answers.mid == pytest.approx(2 * _hours(_row(answering=ANSWERS)).answers.mid)


def test_one_adapter_is_trained_by_one_card_and_all_cards_answer():
    one, four = (_hours(_row(answering=ANSWERS, cards=n)) for n in (1, 4))
    assert four.step == one.step and four.run.cards == 4
    assert four.answers.mid == pytest.approx(one.answers.mid / 4)


def test_cards_that_share_the_steps_train_together():
    row = _row(answering=ANSWERS)
    shared = replace(row, cell=replace(row.cell, recipe=Recipe(data_parallel=2), device_name="2 x a CPU"))
    assert _hours(shared).run.cards == 2
    assert _hours(shared).step.mid == pytest.approx(_hours(row).step.mid / 2)


def test_an_older_row_has_no_answers_and_says_so():
    """Rows of before carry neither answers nor cards; 80 % of the budget is left to their training."""
    raw = to_json(_row())
    del raw["cards"], raw["answering"]
    old = from_json(raw)
    hours = _hours(old)
    assert (hours.run.cards, hours.answers, hours.evidence, hours.share) == (1, None, "none", 0.8)
    assert hours.sentence(12).endswith("take up to 3.54 h of 12, answers not counted")
    assert from_json(to_json(_row(answering=ANSWERS, cards=3))).answering == ANSWERS
    assert "answering" in to_stored(_row())


# --- the run of a fine-tune


def test_an_adapter_per_task_costs_its_steps_for_every_task():
    """24 steps of 4 sequences for each of 400 tasks on 4 cards, 100 each: 100 x 24 x 2.6835 s, 1.789 h. Answers of 9 s
    per task are 0.25 h on 4 cards. The load is once, for all load at the same time."""
    arm = result(5, scope="task", steps=24, decode_s=90.0, recipe=Recipe(sequences_per_step=4))
    candidate = _only(_row(load_s=359.0, cards=4), [arm])
    run = candidate.run
    assert (run.run.scope, run.run.steps, run.run.adapters, run.run.dose) == ("task", 24, 400, 96.0)
    train = 100 * 24 * STEP_S / 4 / 3600
    assert train == pytest.approx(1.789, abs=1e-3)
    assert run.mid == pytest.approx(0.1 + train + 0.25)
    assert run.high == pytest.approx(0.1 + train * SLOW + 0.25 * FULL_SLOW)
    why = rank_candidates([candidate], GOAL).why
    assert "load, 24 steps for each of 400 tasks and the answers take up to 2.5 h of 12." in why
    assert judged_runs([candidate.row], [candidate], GOAL)[candidate.row.key] == run


def test_the_last_card_of_a_queue_decides():
    """10 tasks over 4 cards: two of them have three tasks."""
    arm = result(5, scope="task", steps=24)
    assert _only(_row(cards=4), [arm], replace(GOAL, test_tasks=10)).run.step.mid == pytest.approx(3 * STEP_S / 3600)


def test_an_update_is_paid_once_per_step_however_few_sequences_it_has():
    """16 micro-steps of 0.6708 s and an update of 2 s; with 4 sequences 2.6835 s and the same update."""
    arm = result(5, scope="task", steps=24, recipe=Recipe(sequences_per_step=4))
    row = _row(optimizer_s=(2.0,))
    run = _only(row, [arm], replace(GOAL, test_tasks=1)).run
    assert 3600 * run.step.mid == pytest.approx(STEP_S / 4 + 2.0)


def test_a_shared_adapter_has_more_steps_for_more_tasks():
    """64 steps of 16 for 10 tasks are 102.4 sequences per task, and 2560 steps for 400."""
    run = _only(_row(), [result(5)]).run.run
    assert (run.steps, run.dose, run.work) == (2560, 102.4, "2560 steps for all 400 tasks")


def test_questions_of_one_adapter_are_answered_together_and_others_are_not():
    """Two views of a task share a step of decoding, which eight of a shared adapter do: 0.4 s each instead of 0.1."""
    arm = result(5, scope="task", steps=24, device_name="another", decode_s=90.0)
    run = _only(_row(answering=ANSWERS), [arm]).run
    assert run.evidence == "predicted"  # seconds of another device are none of this one's
    assert run.answers.mid == pytest.approx(800 * (1.024 + 248 * (0.01 + 0.4)) / 3600)


def test_of_two_scopes_the_one_that_fits_is_the_candidate():
    """A shared adapter of 64 steps takes up to 9.1 h; one per task of 24 x 16 sequences 28.6 h and more."""
    arms = [result(4), result(8, scope="task", steps=24)]
    assert _only(_row(), arms).run.run.scope == "shared"
    assert _only(_row(), arms, replace(GOAL, budget_hours=99)).run.run.scope == "task"


# --- what does not match


@pytest.mark.parametrize(
    ("recipe", "text"),
    [
        (Recipe(lora_r=16), "rank 16, here 32"),
        (Recipe(lora_targets="all-linear"), "targets all-linear, here attention"),
        (Recipe(trim_vocab=True, method="dora"), "method dora, here lora, trimmed vocabulary True, here False"),
        (Recipe(implementation=REFERENCE), "step reference, here own"),
    ],
)
def test_an_accuracy_of_another_recipe_is_named_and_not_joined(recipe, text):
    candidate = _only(_row(), [result(5, recipe=recipe)])
    assert candidate.result is None and candidate.run.run.steps == GOAL.steps
    assert candidate.unmatched == f"the accuracy of n-1 is of another run: {text}"


def test_what_is_of_speed_alone_or_costs_nothing_still_matches():
    other = Recipe(micro_batch=4, gradient_checkpointing="all", kernels="plain", learning_rate=1.0, lora_alpha=1)
    assert differences(cell(), result(5, recipe=other).spec) == []


def test_an_accuracy_between_measured_contexts_has_its_hours_by_the_curve():
    """512 and 2048 tokens measured, tuned at 1024: the mean of 687 tokens at a second per 1024, no row of its own."""
    rows = [_row(context=n, seconds=n / 1024) for n in (512, 2048)]
    first, second, tuned = candidates(rows, [result(5)], GOAL)
    assert first.result is None and second.result is None and "context 1024, here 512" in first.unmatched
    assert (tuned.context, tuned.result.arm, tuned.at_own_context) == (1024, "n-1", False)
    assert tuned.run.step.mid == pytest.approx(STEP_S / 3600, rel=2e-3)
    assert tuned.in_its_cell().row.cell.context == 1024
    assert not set(judged_runs(rows, [tuned], GOAL)) - {row.key for row in rows}
    # Eight times beyond what was measured nothing is said.
    assert len(candidates([_row(context=100, seconds=0.1)], [result(5)], GOAL)) == 1


def test_a_baseline_alone_is_no_accuracy_of_a_fine_tune():
    candidate = _only(_row(), [result(2, steps=0, arm="baseline")])
    assert candidate.result is None and candidate.baseline.arm == "baseline"
    assert candidate.run.run.steps == GOAL.steps


def test_a_baseline_that_answered_otherwise_is_not_put_beside():
    arm, other = result(5), result(2, steps=0, arm="baseline")
    assert _only(_row(), [arm, other]).baseline == other
    searched = replace(other, spec=replace(other.spec, decode="dfs"))
    assert _only(_row(), [arm, searched]).baseline is None


def test_a_curve_is_read_at_the_dose_that_the_budget_buys():
    """64 steps for 20 tasks are 51.2 sequences per task. A goal of 2560 steps for 400 tasks is twice that."""
    arm = result(11, tasks=20, curve_points=curve(20, 2, 5, 8, 11))
    candidate = _only(_row(), [arm], Goal(24, 2560, 400))
    assert (candidate.run.run.dose, candidate.bought.run.dose) == (51.2, 102.4)
    assert candidate.estimate.steps == 128 and candidate.estimate.reach == 2.0


# --- the verdict


@pytest.mark.parametrize(
    ("seconds", "word"),
    # Training alone: s x 2.982 h, 18.82 % more at the slow end. Of 12 h 80 % are 9.6.
    [(2.70, "fits"), (2.72, "tight"), (3.38, "tight"), (3.39, "too slow"), (5.0, "too slow")],
)
def test_without_answers_the_slow_end_is_held_against_a_part_of_the_budget(seconds, word):
    row = _row(seconds=seconds)
    assert verdict(row, _hours(row), 12) == word


@pytest.mark.parametrize(
    ("budget", "word"), [(10.75, "fits"), (10.74, "tight"), (9.28, "tight"), (9.26, "too slow"), (7.0, "too slow")]
)
def test_with_answers_the_whole_run_is_held_against_the_whole_budget(budget, word):
    """9.272 h in the middle; at the slow end hypot(0.561, 6.290 x 0.2165) = 1.473 more: 10.745."""
    row = _row(answering=ANSWERS)
    assert _hours(row).high == pytest.approx(10.745, abs=1e-3)
    assert verdict(row, _hours(row), budget) == word


def test_a_prediction_too_wide_to_say_is_unsure_and_samples_too_wide_are_unstable():
    row = _row(answering=replace(ANSWERS, log_sigma=0.4))
    assert verdict(row, _hours(row), 10) == "unsure"
    wide = replace(_row(), micro_s=(1.5, 2.7, 3.9))  # an interval from 0 to 2.3 times the middle
    assert verdict(wide, _hours(wide), 12) == "unstable"


def test_verdicts_without_hours():
    for status, word in (("oom", "too big"), ("too_slow", "too slow"), ("beyond_window", "over window")):
        assert verdict(_row(status=status), None, 12) == word
    bad = _row(losses=(2.0, float("nan")))
    assert verdict(bad, _hours(bad), 12) == "unstable"


def test_a_description_names_the_whole_run():
    run = RunDescription.of_goal(_row(cards=2), GOAL)
    assert (run.views, run.encoding, run.decode, run.select, run.cards) == (2, "rows", "greedy", "vote", 2)
    assert run.steps_for(run.dose) == 1000


def test_no_step_is_taken_to_be_faster_than_the_fine_tune_took():
    """A step of 16 sequences over ARC's lengths takes 10.734 s by the cell; the arm's own took 27 s, or 0.5 s over its
    shorter tasks."""
    row = _row(answering=ANSWERS)
    quick, slow = (_only(row, [replace(result(5), train_s=64 * seconds)]) for seconds in (0.5, 27.0))
    assert quick.run.step.mid * 3600 == pytest.approx(STEP_S)
    assert slow.run.step.mid * 3600 == pytest.approx(27.0) and slow.run.step.high > slow.run.step.mid
    # One adapter per task: the seconds are of all of them.
    per_task = replace(result(5, scope="task"), train_s=10 * 64 * 27.0)
    assert _only(row, [per_task]).run.step.mid * 3600 == pytest.approx(400 * 27.0)
    # On another device they say nothing.
    elsewhere = replace(result(5, device_name="Tesla T4"), train_s=64 * 27.0)
    assert _only(row, [elsewhere]).run.step.mid * 3600 == pytest.approx(STEP_S)


def test_seconds_that_a_busy_machine_made_too_long_are_not_the_runs():
    """The cell's step and the predicted answers count instead; where nothing predicts them, the slow ones do."""
    slow = replace(result(5), train_s=64 * 270.0, decode_s=9000.0, cores_taken=0.8)
    beside, quiet = (_only(_row(answering=ANSWERS), [replace(slow, cores_taken=taken)]).run for taken in (0.8, 0.2))
    assert beside.step.mid * 3600 == pytest.approx(STEP_S) and quiet.step.mid * 3600 == pytest.approx(270.0)
    assert (beside.evidence, quiet.evidence) == ("predicted", "measured")
    assert beside.answers.mid == pytest.approx(_hours(_row(answering=ANSWERS)).answers.mid)
    assert _only(_row(), [slow]).run.evidence == "measured"


def test_answers_that_several_processes_shared_are_of_all_of_them():
    row = _row()
    alone = replace(result(5), decode_s=100.0)
    recipe = replace(alone.spec.recipe, data_parallel=2)
    shared = replace(alone, spec=replace(alone.spec, recipe=recipe, device_name=f"2 x {alone.spec.device_name}"))
    one, two = (_only(row, [arm]).run.answers.mid for arm in (alone, shared))
    assert two == pytest.approx(2 * one)
