"""The scheduler of a run, alone and through simulated runs."""

import random

import pytest
from helpers.records import RECIPE
from helpers.solving import row_of

from harness.predict.answering import DecodeSpeed
from harness.records.arm import DFS, GREEDY, SAMPLE, SCORE, VOTE
from harness.solve.pace import Pace
from harness.solve.progress import Outlook
from harness.solve.schedule import Scheduler
from harness.solve.simulation import Uncertainty, draw, foresee, uncertainty
from harness.solve.tokens import TaskTokens

TASKS = {"a": 10.0, "b": 40.0, "c": 20.0}
LEAST = dict.fromkeys(TASKS, 1.0)


def scheduler(end=1000.0, workers=1, passes=2, expected=None, least=None):
    return Scheduler(expected or TASKS, least or LEAST, end, workers, passes)


def test_the_longest_task_comes_first_and_every_task_once():
    queue, order, now = scheduler(passes=1), [], 0.0
    while assignment := queue.next(0, now):
        order.append(assignment.task)
        now += TASKS[assignment.task]
        queue.done(0, TASKS[assignment.task], 0.5)
    assert order == ["b", "c", "a"]
    assert not queue.anything_left(now)


def test_a_task_may_take_longer_as_far_as_all_others_still_fit():
    # 70 s of work in 140 s: each may take twice its time; in 35 s half of it.
    assert scheduler(end=140).next(0, 0.0).until == pytest.approx(80)
    assert scheduler(end=35).next(0, 0.0).until == pytest.approx(20)
    # Never four times, however much is left.
    assert scheduler(end=10_000).next(0, 0.0).until == pytest.approx(160)


def test_a_task_gets_the_time_of_an_answer_at_least_and_none_goes_beyond_the_end():
    assert scheduler(end=3, least=dict.fromkeys(TASKS, 1.5)).next(0, 0.0).until == pytest.approx(2.25)
    assert scheduler(end=3, least=dict.fromkeys(TASKS, 30.0)).next(0, 0.0).until == 3


def test_a_slow_worker_is_given_more_time_and_its_share():
    queue = scheduler(end=10_000, workers=2)
    queue.next(0, 0.0)
    queue.done(0, 80.0, 0.5)  # twice as long as expected
    assert queue.slowness_of(0) == pytest.approx(2.0)
    assert queue.slowness_of(1) == pytest.approx(2.0)  # until it has shown its own
    assert queue.next(0, 80.0).until == pytest.approx(80 + 4 * 2 * 20)


def test_the_second_pass_takes_the_least_sure_and_no_task_a_third_time():
    queue, now = scheduler(), 0.0
    for confidence in (0.9, 0.2, 1.0):
        queue.next(0, now)
        queue.done(0, 1.0, confidence)
    again = []
    while assignment := queue.next(0, now):
        again.append((assignment.task, assignment.attempt))
        queue.done(0, 1.0, 0.1)
    assert again == [("c", 2), ("b", 2)]  # of a nothing is unsure


def test_nothing_is_begun_that_has_no_time_left():
    queue = scheduler(passes=2)
    for _ in TASKS:
        queue.next(0, 0.0)
        queue.done(0, 40.0, 0.0)
    assert queue.next(0, 999.0) is None and not queue.anything_left(999.0)


def test_a_task_whose_worker_died_is_tried_once_more_first():
    queue = scheduler()
    assert queue.next(0, 0.0).task == "b"
    assert queue.failed(0)
    assert queue.next(0, 1.0) is not None and queue.running[0].task == "b" and queue.running[0].attempt == 2
    assert not queue.failed(0)
    assert queue.next(0, 2.0).task == "c"


def test_what_an_earlier_start_did_is_not_done_again():
    queue = scheduler()
    queue.remember("b", 1, True, 0.5)
    queue.remember("c", 1, False, 0.0)  # its worker died: once more
    queue.remember("a", 1, False, 0.0)
    queue.remember("a", 2, False, 0.0)  # twice: no more
    assert queue.next(0, 0.0).task == "c" and queue.running[0].attempt == 2
    queue.done(0, 20.0, 1.0)
    assert queue.next(0, 20.0).task == "b"


# ---- Whole runs, simulated


def lengths(count=240):
    """Seconds of tasks as in public logs of runs: 90 to 760, most of them short."""
    rng = random.Random(7)
    return {f"t{i:03}": min(760.0, max(90.0, 240 * rng.lognormvariate(0.0, 0.5))) for i in range(count)}


WORKERS = (1.0, 1.0, 1.0, 2.0)
UNSURE = Uncertainty(common=0.1, worker=0.03, task=0.25, startup_s=(120.0, 860.0))


def test_no_task_is_late_and_no_time_left_over_in_simulated_runs():
    """240 tasks over four workers, one of them twice as slow, that need 120 to 860 s to start. The work alone takes
    five hours: in five it is cut, in eight a second pass has what is left."""
    rng, expected = random.Random(0), lengths()
    least = {task: 0.2 * seconds for task, seconds in expected.items()}
    for hours in (5.0, 6.0, 8.0):
        end = 3600 * hours
        runs = [draw(expected, least, end, WORKERS, UNSURE, rng) for _ in range(60)]
        assert all(run.ended_s <= end for run in runs)
        assert sum(run.missed for run in runs) == 0
        assert max(run.unused for run in runs) < 0.03


def test_what_is_foreseen_holds_the_draws():
    expected = lengths(60)
    least = {task: 0.2 * seconds for task, seconds in expected.items()}
    seen = foresee(expected, least, 12 * 3600, WORKERS, UNSURE, draws=200)
    assert seen.hours_low < seen.hours_mid < seen.hours_high
    # All the work over what four workers, one at half speed, do at once; the last one ends a little later.
    ideal = sum(expected.values()) / 3.5 / 3600
    assert ideal < seen.hours_mid < 1.35 * ideal + 860 / 3600
    assert seen.in_time == 1.0 and seen.whole > 0.97
    short = foresee(expected, least, 0.9 * ideal * 3600, WORKERS, UNSURE, draws=200)
    assert short.in_time > 0.9 and short.whole == 0.0  # all are answered, none of them whole
    # The line before a run says so: all in time, and the hours beside it are more than there are.
    assert "that all are answered in time, under 1 % that none is cut short" in short.sentence(60)
    assert "over 99 % that all are answered in time, " in seen.sentence(60)
    none = foresee(expected, expected, 0.5 * ideal * 3600, WORKERS, UNSURE, draws=100)
    assert none.in_time == 0.0


def test_passes_are_simulated_as_they_are_asked_for():
    """Twice as much time as one pass needs: with one pass half of it is left, with more it is used."""
    expected = lengths(60)
    least = {task: 0.2 * seconds for task, seconds in expected.items()}
    end = 2 * sum(expected.values()) / 3.5
    unsure = Uncertainty(common=0.0, worker=0.0, task=0.1, startup_s=(0.0, 0.0))
    one, two = (foresee(expected, least, end, WORKERS, unsure, passes, draws=40) for passes in (1, 2))
    assert one.unused > 0.4 and two.unused < 0.1
    assert one.in_time == two.in_time == 1.0 and one.hours_mid == pytest.approx(two.hours_mid, rel=0.01)


def test_later_passes_cost_a_plan_little_and_looking_ahead_a_run_less(monkeypatch):
    """As many tasks are simulated at ten passes as at two, and of many tasks there are fewer draws."""
    expected, seen = lengths(400), []
    unsure = Uncertainty(common=0.0, worker=0.0, task=0.1, startup_s=(0.0, 0.0))
    begin = Scheduler.next
    monkeypatch.setattr(Scheduler, "next", lambda *args: seen.append(1) or begin(*args))
    begun = []
    for passes in (1, 2, 10):
        foresee(expected, expected, 1e6, WORKERS, unsure, passes, draws=100)
        begun.append(len(seen))
        seen.clear()
    assert begun[0] < begun[1] == begun[2] < 1.2 * begun[0]
    foresee(expected, expected, 1e6, WORKERS, unsure, passes=1)
    assert len(seen) < 1.5e5


def test_a_look_ahead_that_took_long_is_followed_by_a_long_pause():
    pace = Pace(recipe=None, kind="cpu", sequence_s=None, update_s=0.0, decoding=None, rows=1, load_s=2.0,
                common_sigma=0.1)  # fmt: skip
    clock = iter([0.0, 3.0, 10.0, 10.1, 20.0, 20.1])  # the first look takes three seconds, others a tenth of one
    outlook = Outlook(pace, LEAST, clock=lambda: next(clock))
    first = outlook.at(0.0, TASKS, 1000.0, [1.0])
    assert 60 < first[0] < 90 and first[1] == 1.0
    assert outlook.at(149.0, {"a": 10.0}, 1000.0, [1.0]) == first
    assert outlook.at(151.0, {"a": 10.0}, 1000.0, [1.0])[0] < 20
    assert outlook.at(162.0, {}, 1000.0, [1.0]) == (0.0, 1.0)


def test_other_answers_take_longer_by_assumption_until_they_are_measured():
    pace = Pace(
        recipe=RECIPE,
        kind="cpu",
        sequence_s=lambda n: 0.0,
        update_s=0.0,
        decoding=DecodeSpeed(read_s=0.001, step_s=0.0, cached_s=0.0),
        rows=1,
        load_s=2.0,
        common_sigma=0.05,
        source="predicted",
    )
    tokens = TaskTokens("t", (), (100,), 100.0)
    assert pace.answering(GREEDY, VOTE) is pace
    plain = pace.parts(tokens, 1, 4).answer_s
    for decode, select, factor in ((SAMPLE, VOTE, 1.3), (GREEDY, SCORE, 1.56), (DFS, VOTE, 1.72), (DFS, SCORE, 2.28)):
        other = pace.answering(decode, select)
        assert other.parts(tokens, 1, 4).answer_s == pytest.approx(factor * plain, rel=0.01)
        assert other.common_sigma > 0.3 and "assumed" in other.source and (select == SCORE) == (other.score_share > 0)
    # Ten tasks took three seconds where 1.9 were assumed, a third of it for scores.
    assumed = pace.answering(DFS, SCORE)
    rows = [row_of(f"t{i}", train_s=0.0, decode_s=2.0, score_s=1.0, nominal_train_s=0.0, nominal_answer_s=1.9)
            for i in range(10)]  # fmt: skip
    known = assumed.measured_by(rows, "measured")
    assert known.parts(tokens, 1, 4).answer_s == pytest.approx(3 / 1.9 * assumed.parts(tokens, 1, 4).answer_s)
    assert known.score_share == pytest.approx(1 / 3) and known.common_sigma < 0.1 and known.source == "measured"
    # Of these seconds none are kept for scores that nobody asks for.
    assert known.answering(GREEDY, VOTE).score_share == 0.0


def test_a_measured_pace_narrows_what_is_foreseen():
    pace = Pace(
        recipe=None,
        kind="cpu",
        sequence_s=lambda n: 0.01 * n,
        update_s=0.0,
        decoding=None,
        rows=1,
        load_s=2.0,
        common_sigma=0.5,
    )
    rows = [row_of(f"t{i}", train_s=2.0, decode_s=3.0, load_s=20.0) for i in range(20)]
    known = pace.measured_by([*rows, row_of("x", train_s=99.0, cut=True)], "measured")
    assert known.train_factor == pytest.approx(2.0) and known.answer_factor == pytest.approx(3.0)
    assert known.load_s == 20.0
    assert uncertainty(known).common < 0.1 and uncertainty(known).task == pytest.approx(0.0, abs=1e-9)
    assert uncertainty(pace).startup_s == (1.4, 4.0) and uncertainty(pace, loaded=True).startup_s == (0.0, 0.0)
    # One row says little of how tasks spread.
    assert pace.measured_by(rows[:1], "one").task_sigma == 0.25
    assert pace.measured_by([], "none") is pace
