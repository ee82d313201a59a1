"""Runs with stand-in workers: what is on disk after whatever a worker, a task or the run itself goes through."""

import json
import time
from dataclasses import replace

import pytest
from helpers.solving import Solve, Watch
from helpers.sweep import CARD

from harness.errors import UserError
from harness.hardware.info import Device, DeviceReport
from harness.records import solving
from harness.records.measurement import MatmulSpeed
from harness.shard import Shard
from harness.solve import run, submission
from harness.workers.cluster import Fleet, Kind


@pytest.fixture
def solve(tmp_path, arc_folder):
    return Solve(tmp_path, arc_folder)


def test_every_task_is_answered_once_the_longest_first_and_the_submission_is_valid(solve):
    result = solve.run()
    assert {row.task for row in solve.rows} == solve.answered() == {task.id for task in solve.tasks}
    assert [row.attempt for row in result.rows] == [1] * 6
    assert all(row.ok and not row.cut and row.load_s > 0 for row in result.rows)
    assert result.planned and result.planned.in_time > 0.9
    assert result.ended < result.end
    assert (
        result.first_pass_h and 0 < 3600 * result.first_pass_h < result.ended - result.began + 1
    )  # seconds of made rows


def test_tasks_that_do_not_fit_the_context_are_named_before_the_first_answer(solve):
    """A test input of 30 x 30 cells is 930 tokens, and the context has 512."""
    solve.run()
    assert not any("beyond 512 tokens" in note for note in solve.watch.notes)
    large = replace(solve.tasks[2], test_inputs=(((0,) * 30,) * 30,))
    solve.tasks = [*solve.tasks[:2], large, *solve.tasks[3:]]
    solve.run()
    (said,) = [note for note in solve.watch.notes if "beyond 512 tokens" in note]
    assert said.startswith("1 of 6 tasks has a test input") and said.endswith(f": {large.id}")
    assert large.id not in solve.answered()


def test_an_unanswered_submission_is_there_before_the_first_answer(solve):
    seen = []

    class Early(Watch):
        def progress(self, progress):
            seen.append(json.loads(solve.out.read_text()))

    solve.world(load=0.5)
    solve.run(Early())
    assert submission.faults(seen[0], solve.tasks) == []
    assert all(answer["attempt_1"] == [[0, 0], [0, 0]] for answers in seen[0].values() for answer in answers)


def test_a_worker_that_dies_is_replaced_and_its_task_tried_once_more(solve):
    solve.world(ends={"t1": "kill once", "t2": "kill"})
    solve.run()
    attempts = {(row.task, row.attempt): row.status for row in solve.rows}
    assert attempts[("t1", 1)] == "killed" and attempts[("t1", 2)] == "ok"
    assert attempts[("t2", 1)] == attempts[("t2", 2)] == "killed" and ("t2", 3) not in attempts
    assert solve.answered() == {"t0", "t1", "t3", "t4", "t5"}
    assert sum("died at" in note for note in solve.watch.notes) == 3


def test_a_task_that_goes_on_after_its_time_is_stopped_and_keeps_its_answer(solve):
    solve.world(ends={"t1": "hang", "t2": "hang in silence"})
    began = time.monotonic()
    solve.run(budget_s=60.0)
    rows = {row.task: row for row in solve.rows}
    assert rows["t1"].status == rows["t2"].status == "timeout" and rows["t1"].cut
    assert solve.answered() == {"t0", "t1", "t3", "t4", "t5"}
    assert time.monotonic() - began < 60


def test_it_ends_before_the_deadline_whatever_tasks_do(solve):
    solve.world(ends={task.id: "hang" for task in solve.tasks})
    result = solve.run(budget_s=8.0, workers=2)
    assert result.ended <= result.end
    assert {row.status for row in solve.rows} == {"timeout"}
    assert solve.answered()


def test_an_answer_a_little_after_the_last_moment_is_kept(tmp_path, arc_folder):
    """Steps for much more time than there is: the task's time is the run's."""
    solve = Solve(tmp_path, arc_folder, count=1)
    solve.world(ends={"t0": "late"})
    result = solve.run(budget_s=10.0, steps=10**6)
    (row,) = solve.rows
    assert row.ok and 1.0 < row.cap_s < 6.5 and solve.answered() == {"t0"}
    assert result.ended <= result.end


def test_what_fewer_views_were_predicted_to_take_is_of_these(solve):
    whole = solve.run().rows
    solve.world(answers={"votes": [[["000", 1]]], "views": 1})
    for few, all_views in zip(solve.run(fresh=True).rows, whole, strict=True):
        assert few.views == 1 and all_views.views == 2
        assert (
            0 < few.nominal_answer_s < all_views.nominal_answer_s and few.nominal_train_s == all_views.nominal_train_s
        )


def test_out_of_memory_is_a_row_and_the_worker_goes_on(solve):
    solve.world(ends={"t1": "oom"})
    solve.run()
    assert [row.status for row in solve.rows if row.task == "t1"] == ["oom", "oom"]
    assert len(solve.answered()) == 5


def test_a_second_pass_is_over_what_is_not_sure_in_the_time_left(solve):
    # The stand-in's views all agree: nothing is left to ask again.
    solve.run(passes=2)
    assert [row.attempt for row in solve.rows] == [1] * 6
    solve.world(ends={"t3": "hang in silence"})
    solve.run(passes=2, fresh=True, budget_s=60)
    assert [row.attempt for row in solve.rows if row.task == "t3"] == [1, 2]


def test_what_the_likelihood_chose_is_submitted_and_both_passes_are_joined(solve):
    """The grid with fewer votes and the higher score is first, as its row says; all get a second try."""
    solve.world(answers={"votes": [[["000", 2], ["111", 1]]], "scores": [[-2.0, -1.5]], "score_s": 0.01})
    solve.run(decode="dfs", select="score", passes=2)
    assert sorted(row.attempt for row in solve.rows) == [1] * 6 + [2] * 6
    assert all(row.scores == ((-2.0, -1.5),) and row.answer_s == pytest.approx(0.02) for row in solve.rows)
    for answers in json.loads(solve.out.read_text()).values():
        assert answers == [{"attempt_1": [[1, 1, 1]], "attempt_2": [[0, 0, 0]]}]
    # Another way of answering is another run, and other seconds.
    solve.world()
    solve.run()
    assert len({row.run for row in solve.rows}) == len({row.setting for row in solve.rows}) == 2


def test_answers_that_were_known_tell_how_many_of_others_are_right(solve):
    """A run whose solutions are at hand, all of them wrong, and one of other tasks without any."""
    from rich.console import Console

    from harness.report.solving import summary

    answers = {"votes": [[["000", 1], ["111", 1]]]}
    solve.world(answers=answers)
    first, tasks = solve.run(), solve.tasks
    assert first.expected is None and all(row.right == (False,) for row in solve.rows)
    solve.tasks = [replace(task, id=f"u{task.id}") for task in tasks]
    solutions, solve.solutions = solve.solutions, {}
    assert solve.run().expected is None  # six known answers are too few
    solve.tasks, solve.solutions = (
        [replace(task, id=f"v{task.id}") for task in tasks],
        {f"v{name}": truth for name, truth in solutions.items()},
    )
    solve.run()
    solve.tasks, solve.solutions = [replace(task, id=f"w{task.id}") for task in tasks], {}
    seen = solve.run()
    assert seen.expected.known == 12 and seen.expected.tasks == 6 and seen.expected.high < 4
    # Of a shard only its own tasks are counted.
    solve.tasks = [replace(task, id=f"x{task.id}") for task in tasks]
    assert solve.run(shard=Shard(1, 2)).expected.tasks == 3
    with (solve.folder / "out").open("w") as file:
        summary(seen, solve.config(), Console(file=file, width=80))
    assert "expected correct: " in (solve.folder / "out").read_text()


def test_cards_have_a_worker_each(solve):
    solve.world(device={**CARD, "others": ["cuda:1 Tesla T4"], "partners": ["T4b"]}, seconds=0.2)
    solve.run(workers=2, budget_s=60)
    assert {row.device for row in solve.rows} == {"cuda:0 0", "cuda:0 1"}


def test_a_card_that_is_gone_leaves_its_tasks_to_the_others(solve):
    solve.world(device={**CARD, "others": ["cuda:1 Tesla T4"], "partners": ["T4b"]}, dead=[1], seconds=1.0)
    solve.run(workers=2, budget_s=60)
    assert {row.device for row in solve.rows} == {"cuda:0 0"} and len(solve.answered()) == 6
    assert sum("cannot load the model: RuntimeError: the card is lost" in note for note in solve.watch.notes) == 1


def test_a_model_that_no_worker_can_load_is_told_once(solve):
    solve.world(unloadable="the weights are torn")
    with pytest.raises(UserError, match=r"cannot load the model: .*the weights are torn"):
        solve.run()
    solve.world(refuse="m: has no tokenizer; put it beside the weights")
    with pytest.raises(UserError, match="has no tokenizer"):
        solve.run(fresh=True)


def test_cards_that_are_all_gone_leave_what_is_answered(solve):
    """Every worker dies within its second task, and none can be loaded any more."""

    class Torn(Watch):
        def progress(self, progress):
            if progress.answered:
                solve.world(
                    unloadable="the card is lost", ends=dict.fromkeys(("t0", "t1", "t2", "t3", "t4", "t5"), "kill")
                )

    result = solve.run(Torn(), budget_s=60)
    answered = {row.task for row in result.rows if row.votes}
    assert answered and solve.answered() == answered and len(answered) < 6
    assert any("the card is lost" in note and "the same command goes on" in note for note in solve.watch.notes)
    solve.world()
    solve.run(budget_s=60)
    assert solve.answered() > answered


def test_cards_that_are_all_gone_before_any_grid_was_answered_are_an_error(solve):
    """Votes for nothing, as depth first gives where no grid is likely enough, are no answer."""

    class Torn(Watch):
        def progress(self, progress):
            if progress.answered:
                solve.world(unloadable="the card is lost", ends={task.id: "kill" for task in solve.tasks})

    solve.world(answers={"votes": [[]]})
    with pytest.raises(UserError, match="the card is lost"):
        solve.run(Torn(), budget_s=60)
    assert solve.rows[0].votes == ((),) and not solve.answered()


def test_a_place_that_no_submission_can_be_written_to_is_found_at_the_start(solve):
    solve.out.mkdir()
    with pytest.raises(UserError, match="is a folder"):
        solve.config()
    solve.out = solve.folder / "nosuch" / "submission.json"
    with pytest.raises(UserError, match="cannot be written"):
        solve.config()


def test_a_full_disk_stops_the_run_and_the_submission_stays_valid(solve, monkeypatch):
    real, written = submission.replace_atomically, []

    def full_after_three(path, content):
        written.append(path)
        if len(written) > 4:
            raise UserError(f"{path}: cannot be written (No space left on device); name a folder that can be")
        real(path, content)

    monkeypatch.setattr(submission, "replace_atomically", full_after_three)
    with pytest.raises(UserError, match="No space left"):
        solve.run()
    assert len(solve.answered()) >= 1
    monkeypatch.undo()
    solve.run()
    assert len(solve.answered()) == 6


def test_rows_of_elsewhere_are_checked(solve):
    solve.run()
    path = solve.results / solving.ROWS.name
    lines = path.read_text().splitlines()
    forged = {**json.loads(lines[0]), "train_s": -1.0}
    path.write_text("\n".join([json.dumps(forged), "{", *lines[1:]]) + "\n")
    solve.run()
    assert len(solve.answered()) == 6 and len(solve.log) == 7
    assert any("2 corrupt lines" in note for note in solve.watch.notes)


def test_cards_of_a_cluster_that_compute_in_other_dtypes_are_not_mixed(monkeypatch):
    t4 = {"fp16": MatmulSpeed(1e13, 1e13, True), "bf16": MatmulSpeed(1e11, 1e11, False)}
    l4 = {"fp16": MatmulSpeed(1e13, 1e13, True), "bf16": MatmulSpeed(1e13, 1e13, True)}
    first = DeviceReport(Device("cuda:0", "NVIDIA L4", 1), l4)
    fleet = Fleet(None, (Kind("L4", 2), Kind("T4", 2)))
    monkeypatch.setattr(run, "RayExecutor", lambda *_: None)
    monkeypatch.setattr(run, "find", lambda *_: None)
    monkeypatch.setattr(run, "report_on", lambda *_: DeviceReport(Device("cuda:0", "Tesla T4", 1), t4))
    with pytest.raises(UserError, match=r"NVIDIA L4 computes in bf16 and T4 in fp16: .* choose cards with --on"):
        run._must_compute_alike(fleet, first, ())
    monkeypatch.setattr(run, "report_on", lambda *_: first)
    run._must_compute_alike(fleet, first, ())
