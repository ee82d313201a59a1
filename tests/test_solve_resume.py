"""Runs that are started again, with stand-in workers: their deadline, the rows that count, and what is refused."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from helpers.solving import Solve, Watch

from harness.errors import UserError
from harness.records import solving
from harness.solve import state as states


@pytest.fixture
def solve(tmp_path, arc_folder):
    return Solve(tmp_path, arc_folder)


def test_a_killed_run_goes_on_and_keeps_the_first_deadline(solve, tmp_path):
    solve.world(seconds=0.3)
    script = (
        f"import sys; sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1])]!r}\n"
        "from pathlib import Path\nfrom helpers.solving import Solve\n"
        f"s = Solve(Path({str(tmp_path)!r}), Path({str(solve.model)!r})); s.world(seconds=0.3); s.run(budget_s=60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script])
    path = solve.results / "solved.jsonl"
    while child.poll() is None and not (path.exists() and path.read_text().count("\n") >= 2):
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    before = path.read_text().count("\n")
    assert 2 <= before < 6
    result = solve.run(budget_s=10_000)
    assert 0 < result.end - result.began <= 60.0
    assert result.planned and result.first_pass_h
    assert sorted(row.task for row in solve.rows) == [task.id for task in solve.tasks]
    assert len(solve.log) - before <= 5  # the one under way is done again, no other
    assert "going on after" in " ".join(solve.watch.notes)
    # All is done: a third start does nothing but write the submission again.
    done = len(solve.log)
    solve.out.unlink()
    solve.run()
    assert len(solve.log) == done and len(solve.answered()) == 6
    # And a fresh one begins anew.
    solve.run(fresh=True)
    assert len(solve.log) == done + 6


def test_a_run_whose_deadline_is_over_is_told_from_its_record(solve):
    """Killed with a task left, and started again a day later."""
    solve.run()
    key, path = solve.rows[0].run, solve.results / "solved.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    state = replace(states.load(solve.results, key), finished=False)
    states.save(solve.results, replace(state, began=state.began - 86400, end=state.end - 86400))
    done = len(solve.log)
    result = solve.run()
    assert len(solve.log) == done and len(solve.answered()) == 5
    assert any("from the record: 5 rows" in note and "is over; --fresh" in note for note in solve.watch.notes)
    last = max(datetime.fromisoformat(row.started).timestamp() + row.seconds for row in solve.rows)
    assert result.ended == pytest.approx(last)


def test_other_tasks_under_the_same_names_are_another_run(solve):
    solve.run()
    swapped = {"t0": solve.tasks[1], "t1": solve.tasks[0]}
    solve.tasks = [replace(swapped.get(task.id, task), id=task.id) for task in solve.tasks]
    solve.run()
    assert len(solve.log) == 12


def test_a_budget_begins_with_the_start_and_not_with_the_first_worker(solve):
    heard = []

    class Slow(Watch):
        def note(self, text):
            super().note(text)
            heard.append(time.time())
            time.sleep(0.5)

    result = solve.run(Slow(), budget_s=60.0)
    assert solve.watch.notes[0].startswith("looking at the device") and result.end <= heard[0] + 60.0


def test_a_refused_run_leaves_the_submission_alone_and_no_deadline_behind(solve):
    solve.run()
    before = solve.out.read_text()
    with pytest.raises(UserError, match=r"too short for any task: .* give a longer --budget-hours"):
        solve.run(steps=5, budget_s=0.01)
    assert solve.out.read_text() == before
    solve.run(steps=5)
    assert len(solve.answered()) == 6 and not any("going on" in note for note in solve.watch.notes)


def test_a_deadline_that_was_over_before_any_answer_has_its_remedy(solve):
    solve.world(unloadable="no such card")
    with pytest.raises(UserError, match="cannot load the model"):
        solve.run()
    (path,) = (solve.results / "runs").iterdir()
    state = json.loads(path.read_text())
    path.write_text(json.dumps({**state, "end": state["began"] + 0.01}))
    with pytest.raises(UserError, match=r"too short for any task: .* at least; --fresh starts anew"):
        solve.run()


def test_rows_of_older_rules_are_counted(solve):
    solve.run()
    path = solve.results / solving.ROWS.name
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**row, "rule": solving.SOLVING_RULE - 1}) + "\n" for row in rows))
    solve.run()
    assert len(solve.log) == 12
    assert sum("6 rows of older rules of solved.jsonl were left out" in note for note in solve.watch.notes) == 1
    # What has been answered again is missing nowhere.
    solve.run()
    assert not any("older rules" in note for note in solve.watch.notes)


def test_a_deadline_in_the_past_is_refused(solve):
    with pytest.raises(UserError, match="deadline is over"):
        solve.run(end=time.time() - 1)
