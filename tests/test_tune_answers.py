"""Arms that are decoded and selected in other ways: keys, confidence, resumption, and the choice by likelihood."""

import math
from dataclasses import replace

import pytest
import torch
from helpers.tasks import made_tasks
from helpers.tuning import RECIPE, STEPS, Watched, arms_of, spec_of

from harness.arc.dataset import Questions
from harness.arc.encode import from_rows, rows
from harness.errors import UserError
from harness.records.arm import DFS, GREEDY, SCORE, TASK, VOTE, from_json, to_json
from harness.records.cell import TUNING_RULE, record_key
from harness.records.stored import to_stored
from harness.tune import answers
from harness.tune.answers import chosen, decoded, scored
from harness.tune.config import TuneConfig
from harness.tune.runner import ArmRunner


def test_keys_of_greedy_by_vote_are_those_of_before(arc_folder):
    tasks, _ = made_tasks(2)
    spec = spec_of(arc_folder, tasks)
    before = to_stored(spec)
    del before["decode"], before["select"]
    key = record_key({**before, "arm": "n-1"}, TUNING_RULE, {})
    assert spec.key("n-1", {}) == key
    others = [replace(spec, decode=DFS), replace(spec, select=SCORE), replace(spec, decode=DFS, select=SCORE)]
    assert len({key, *(other.key("n-1", {}) for other in others)}) == 4


def test_an_arm_by_dfs_and_score_is_a_row_of_its_own(tmp_path, arc_folder):
    tasks, solutions = made_tasks(3)
    spec = spec_of(arc_folder, tasks, recipe=replace(RECIPE, learning_rate=1e-3))
    (greedy,), _ = arms_of(spec, tasks, solutions, tmp_path)
    (row,), notes = arms_of(spec, tasks, solutions, tmp_path, decode=DFS, select=SCORE)
    assert row.ok and (row.label, greedy.label) == ("n-1, dfs, score", "n-1")
    assert row.step_losses == greedy.step_losses and row.answer_losses == greedy.answer_losses
    assert greedy.score_s == 0 and row.decode_s > 0 and row.score_s >= 0
    assert from_json(to_json(row)) == row
    # A share for every attempt, the first choice's not below the second's.
    for result in (greedy, row):
        for name, inputs in result.attempts.items():
            shares = result.confidence[name]
            assert [len(grids) for grids in inputs] == [len(own) for own in shares]
            assert all(list(own) == sorted(own, reverse=True) and sum(own) <= 1 + 1e-9 for own in shares)
    # From the record the second time.
    _, notes = arms_of(spec, tasks, solutions, tmp_path, decode=DFS, select=SCORE)
    assert any("from the record" in text for text in notes)


def test_stopped_between_two_tasks_the_attempts_are_the_same(tmp_path, arc_folder):
    tasks, solutions = made_tasks(3)
    spec = spec_of(arc_folder, tasks, scope=TASK, decode=DFS, select=SCORE, recipe=replace(RECIPE, learning_rate=1e-3))
    whole = Watched(spec, tasks, solutions, tmp_path / "one.pt", 1e9).outcome
    Watched(spec, tasks, solutions, tmp_path / "two.pt", 0, stop=STEPS + 3)
    again = Watched(spec, tasks, solutions, tmp_path / "two.pt", 1e9)
    assert len(again.steps) < 2 * STEPS and not any("put aside" in note for note in again.notes)
    assert again.outcome.choices == whole.choices and set(whole.choices) == {"t0", "t1", "t2"}


def test_the_score_is_the_likelihood_over_all_views(arc_folder):
    """Of three given grids: means over both views of plain forwards, and their softmax as confidence."""
    tasks, solutions = made_tasks(2)
    spec = spec_of(arc_folder, tasks)
    runner = ArmRunner(spec, tasks, solutions)
    model, tokenizer = runner.model, runner.tokenizer
    questions = Questions(tasks, runner.prompts, spec.views)
    grids = [solutions["t0"][0], ((1, 2), (3, 4)), ((5,),)]
    found = {"t0": [dict.fromkeys(grids, 0.0)], "t1": [{grids[1]: 0.0}]}
    scores = scored(model, tokenizer, questions, found, "rows")
    model.eval()
    for grid in grids:
        total = 0.0
        for number, (id, _, _) in enumerate(questions.candidates([[]] * len(questions.prompts))):
            if id != "t0":
                continue
            text = rows(questions.in_view(number, grid))
            answer = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
            prompt = questions.prompts[number]
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([[*prompt, *answer]]), use_cache=False).logits[0].log_softmax(-1)
            total += sum(logits[len(prompt) - 1 + k, token].item() for k, token in enumerate(answer)) / spec.views
        assert scores["t0"][0][grid] == pytest.approx(total, abs=1e-3, rel=1e-5)
    # The best two of what the views gave, by likelihood.
    texts = [rows(questions.in_view(n, grids[n % 2])) for n in range(len(questions.prompts))]
    _, choices, _ = chosen(model, tokenizer, questions, texts, replace(spec, select=SCORE))
    best, second = choices["t0"][0]
    assert {best[0], second[0]} == set(grids[:2]) and best[1] + second[1] == pytest.approx(1)
    assert (scores["t0"][0][best[0]] > scores["t0"][0][second[0]]) == (best[1] > second[1])
    # By vote, a share of the votes.
    _, choices, _ = chosen(model, tokenizer, questions, texts, spec)
    assert [share for _, share in choices["t0"][0]] == [0.5, 0.5]


@pytest.mark.parametrize("wrong", [math.nan, -math.inf])
def test_a_likelihood_that_is_no_number_leaves_it_to_the_votes(arc_folder, monkeypatch, wrong):
    tasks, solutions = made_tasks(2)
    spec = spec_of(arc_folder, tasks, views=3, select=SCORE)
    runner = ArmRunner(spec, tasks, solutions)
    questions = Questions(tasks, runner.prompts, spec.views)
    # Two views of three gave the first grid; the model is sure of the second one, or so it seems for t1.
    monkeypatch.setattr(answers, "log_likelihoods", lambda model, rows, **_: [
        [-5.0, wrong if n < 3 else -1.0] for n in range(len(rows))
    ])  # fmt: skip
    grids = [((1, 2), (3, 4)), ((5,),)]
    order = iter([0, 1, 0] * 2)
    texts = [rows(questions.in_view(n, grids[next(order)])) for n in range(len(questions.prompts))]
    _, choices, _ = chosen(runner.model, runner.tokenizer, questions, texts, spec)
    assert choices["t0"] == [[(grids[0], pytest.approx(2 / 3)), (grids[1], pytest.approx(1 / 3))]]
    assert choices["t1"][0][0][0] == grids[1]


def test_only_grids_come_out_of_an_untrained_model(arc_folder):
    tasks, solutions = made_tasks(3)
    spec = spec_of(arc_folder, tasks, decode=DFS)
    runner = ArmRunner(spec, tasks, solutions)
    questions = Questions(tasks, runner.prompts, spec.views)
    for method in (DFS, "sample"):
        own = replace(spec, decode=method)
        texts = decoded(runner.model, runner.tokenizer, questions.prompts, questions.max_new_tokens, own)
        assert all(from_rows(part) for text in texts if text for part in text.split("\n\n"))


def test_other_ways_are_refused(arc_folder):
    tasks, _ = made_tasks(2)
    spec = spec_of(arc_folder, tasks)

    class Settings:
        pass

    for more, sentence in (
        ({"decode": "beam"}, "decoder"),
        ({"select": "best"}, "selection"),
        ({"curve": True, "decode": DFS}, "leave out --decode"),
        ({"curve": True, "select": SCORE}, "leave out --decode"),
    ):
        with pytest.raises(UserError, match=sentence):
            TuneConfig.of(spec.model, spec.weights, Settings(), recipe=RECIPE, **more)
    assert (spec.decode, spec.select) == (GREEDY, VOTE)
