"""A task set in shares: each run answers its own, and merged they are the run of all."""

import json

import pytest
from helpers.solving import Solve
from helpers.sweep import WORLD
from helpers.tasks import write_tasks

from harness.cli import app
from harness.records import solving
from harness.records.merge import merge
from harness.shard import Shard
from harness.solve import submission


@pytest.fixture
def shares(tmp_path, arc_folder):
    """Two finished shards of six tasks."""
    runs = [Solve(tmp_path / f"shard{number}", arc_folder) for number in (1, 2)]
    for number, run in enumerate(runs, 1):
        run.run(shard=Shard(number, 2))
    return runs


@pytest.fixture(autouse=True)
def folders(tmp_path):
    for number in (1, 2):
        (tmp_path / f"shard{number}").mkdir()


def test_each_share_answers_its_tasks_and_has_all_in_its_submission(shares):
    first, second = shares
    assert [row.task for row in first.rows] == ["t0", "t3", "t4"] and [row.task for row in second.rows] == [
        "t1",
        "t2",
        "t5",
    ]
    for run in shares:
        assert submission.faults(json.loads(run.out.read_text()), run.tasks) == []
    # One run for all shares: it is the same key.
    assert len({row.run for run in shares for row in run.rows}) == 1


def test_merged_they_are_the_submission_of_all(shares, tmp_path, monkeypatch, capsys):
    challenges = tmp_path / "challenges.json"
    challenges.write_text(json.dumps({
        task.id: {
            "train": [{"input": d.input, "output": d.output} for d in task.demonstrations],
            "test": [{"input": grid} for grid in task.test_inputs],
        }
        for task in shares[0].tasks
    }))  # fmt: skip
    folders, out = [str(run.results) for run in shares], tmp_path / "all.json"
    words = ["merge", *folders, "--into", str(tmp_path / "all"), "--tasks", str(challenges), "--out", str(out)]
    for _ in range(2):
        with pytest.raises(SystemExit) as end:
            app.main(words)
        assert not end.value.code
    printed = capsys.readouterr().out
    assert "6 new rows, 0 that it had, 0 conflicts" in printed and "0 new rows, 6 that it had" in printed
    assert "6 of 6 tasks answered" in printed
    raw = json.loads(out.read_text())
    assert submission.faults(raw, shares[0].tasks) == []
    assert all(answer["attempt_1"] == [[0, 0, 0]] for answers in raw.values() for answer in answers)


def test_shards_on_different_cards_are_one_submission_and_other_rows_are_named(tmp_path, arc_folder, capsys):
    for number, name in ((1, "Xeon"), (2, "EPYC")):
        solve = Solve(tmp_path / f"shard{number}", arc_folder)
        solve.world(device={**WORLD["device"], "name": name})
        if number == 1:
            solve.run(steps=8)  # other settings
        solve.run(shard=Shard(number, 2))
    write_tasks(tmp_path / "tasks", solve.tasks, solve.solutions)
    folders, out = [str(tmp_path / f"shard{number}" / "results") for number in (1, 2)], tmp_path / "all.json"
    with pytest.raises(SystemExit) as end:
        app.main(
            ["merge", *folders, "--into", str(tmp_path / "all"), "--tasks", str(tmp_path / "tasks"), "--out", str(out)]
        )
    assert not end.value.code
    printed = " ".join(capsys.readouterr().out.split())
    assert "6 of 6 tasks answered" in printed
    assert "not in it: 6 rows of other settings or earlier runs, made on Xeon" in printed
    assert len({row.run for row in solving.newest_run(tmp_path / "all")}) == 2


def test_rows_of_an_earlier_run_are_not_joined(shares, tmp_path):
    merge([run.results for run in shares], tmp_path / "all")
    newest = solving.newest_run(tmp_path / "all")
    shares[0].run(shard=Shard(1, 2), steps=8)
    merge([shares[0].results], tmp_path / "all")
    later = solving.newest_run(tmp_path / "all")
    assert len(newest) == 6 and len(later) == 3 and {row.run for row in later}.isdisjoint({row.run for row in newest})


def test_shards_one_after_the_other_in_one_folder_have_deadlines_of_their_own(tmp_path, arc_folder):
    solve = Solve(tmp_path, arc_folder)
    first = solve.run(shard=Shard(1, 2), budget_s=60)
    second = solve.run(shard=Shard(2, 2), budget_s=90)
    assert second.end - first.end > 90 - 60  # it was started later, too
    assert second.planned and [row.task for row in second.rows] == ["t1", "t2", "t5"]
    again = solve.run(shard=Shard(1, 2), budget_s=500)
    assert (again.began, again.end) == (first.began, first.end)
    assert [row.task for row in again.rows] == ["t0", "t3", "t4"] and len(solve.log) == 6


def test_the_key_of_a_run_is_of_all_tasks(shares):
    config = shares[0].config()
    assert len(config.share) == 6
    assert shares[0].config(shard=Shard(2, 2)).share == [config.tasks[i] for i in (1, 2, 5)]
