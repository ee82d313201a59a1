"""Sweeps, fine-tunes and runs on two Ray nodes of this machine: lost nodes, killed drivers, mixed cards."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from helpers import killed
from helpers.cluster import CLI, MARK, SWEEP, add_node, environment, marked, run_cli, two_nodes
from helpers.solving import Solve
from helpers.sweep import CARD, WORLD, Bench, Watch

from harness import pipeline
from harness.arc import arms
from harness.errors import UserError
from harness.records import arm, solving
from harness.records.store import MEASUREMENTS, Store
from harness.tune import run as tuning
from harness.workers import cluster
from harness.workers.cluster import Fleet, Kind
from harness.workers.local import LocalExecutor
from harness.workers.ray import RayExecutor

pytest.importorskip("ray")
TWO = Kind("cpu", 2, 1)
CARDS = {name: {**CARD, "name": name, "uuid": name} for name in ("T4", "L4")}


@pytest.fixture(scope="module")
def nodes():
    with two_nodes(cards=("T4", "L4")) as (made, handles):
        yield SimpleNamespace(
            ray=cluster.connect(made.address), made=made, handles=dict(zip(CARDS, handles, strict=True))
        )


def lose(nodes, card="L4"):
    nodes.made.remove_node(nodes.handles.pop(card))


@pytest.fixture
def whole(nodes):
    """The cluster, which has both nodes again afterwards."""
    yield nodes
    for card in CARDS.keys() - nodes.handles.keys():
        nodes.handles[card] = add_node(nodes.made, card)


def waited(condition, within_s=60.0):
    until = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return value


def begun(file):
    """The cells, arms or tasks that workers have begun, one per line."""
    log = file.with_suffix(".log")
    return log.read_text().splitlines() if log.exists() else []


def in_thread(work):
    """What `work` gives, when `end` is called."""
    done = []
    thread = threading.Thread(target=lambda: done.append(work()))
    thread.start()

    def end():
        thread.join(120)
        assert done
        return done[0]

    return end


def placeless(row):
    """A row without what no two runs have in common, nor where it was made."""
    plain = killed.same_measurement if hasattr(row, "micro_s") else killed.same_arm
    made = plain(json.loads(json.dumps(_kind_of(row).to_json(row))))
    return replace(made, place=None, notes=tuple(note for note in made.notes if "its machine was lost" not in note))


def _kind_of(row):
    return MEASUREMENTS if hasattr(row, "micro_s") else arm.ROWS


def lines(folder, name="records.jsonl"):
    return (folder / name).read_text().splitlines()


# ---- A node is lost

CELLS = {"names": ("bf16", "fp32"), "windows": (4096, 8192)}  # two models, eight cells


@pytest.fixture
def undisturbed(tmp_path):
    (tmp_path / "alone").mkdir()
    bench = Bench(tmp_path / "alone")
    return bench.run(**CELLS)[0].rows


def test_a_sweep_whose_node_is_lost_has_the_rows_of_one_that_was_not_disturbed(whole, tmp_path, shipped, undisturbed):
    bench, watch = Bench(tmp_path), Watch()
    bench.world(WORLD, seconds=60)
    config, fleet = bench.config(**CELLS), Fleet(whole.ray, (TWO,), bench.command)
    end = in_thread(lambda: pipeline.bench_fleet(config, shipped, watch, fleet, accuracy=False))
    waited(lambda: len(begun(bench.file)) == 2)  # one on each
    lose(whole)
    bench.world(WORLD, seconds=0.05)
    (result,) = end()
    rows = result.swept.rows
    assert [placeless(row) for row in rows] == [placeless(row) for row in undisturbed]
    assert len(lines(result.swept.folder)) == 8 and len(begun(bench.file)) == 9
    again = [row for row in rows if row.place.attempt == 2]
    assert len(again) == 1 and again[0].notes == ("its machine was lost at first; done again on another",)
    assert all(row.place.host and row.place.attempt == 1 for row in rows if row is not again[0])


@pytest.fixture
def arms_of(tmp_path, arc_folder):
    """A fine-tune of three arms in a folder, by the stand-in."""

    def made(name, **world):
        (tmp_path / name).mkdir()
        solve = Solve(tmp_path / name, arc_folder, count=2)
        solve.world(**world)
        config = replace(solve.config().tune, arms=arms.choose("baseline, n-1, + geometric"), scope="shared")
        return solve, config

    return made


class Tuning:
    def __init__(self):
        self.notes, self.steps = [], []

    def note(self, text):
        self.notes.append(text)

    def step(self, arm, step, total, loss):
        self.steps.append(arm)

    def answers(self, done, total):
        pass


def test_a_fine_tune_whose_node_is_lost_has_every_arm_once(whole, arms_of):
    """One arm at a time: when the second one's node goes, the first one is done and stays."""
    alone, config = arms_of("alone")
    expected = tuning.run(config, Tuning(), LocalExecutor(alone.command)).rows
    solve, config = arms_of("lost", seconds=0.05)
    fleet, watch = Fleet(whole.ray, (replace(TWO, count=1),), solve.command), Tuning()

    def step(name, *_):
        # The second arm is at work: its node says which it is.
        if name == "n-1" and not lost.is_set():
            lost.set()
            solve.world(seconds=0.05)
            lose(whole, begun(solve.file)[-1].rpartition(" ")[2])

    lost, watch.step = threading.Event(), step
    solve.world(seconds=1)
    end = in_thread(lambda: tuning.run(config, watch, fleet=fleet).rows)
    rows = end()
    assert [placeless(row) for row in rows] == [placeless(row) for row in expected]
    assert [row.place.attempt for row in rows] == [1, 2, 1]
    assert len(lines(config.results, arm.ROWS.name)) == 3 and len(begun(solve.file)) == 4


def test_a_run_whose_node_is_lost_answers_all_and_tries_one_task_again(whole, tmp_path, arc_folder):
    (tmp_path / "alone").mkdir()
    alone = Solve(tmp_path / "alone", arc_folder)
    alone.run()
    solve = Solve(tmp_path, arc_folder)
    solve.fleet = Fleet(whole.ray, (TWO,))
    solve.world(seconds=30)
    end = in_thread(lambda: solve.run(workers=2, budget_s=120))
    waited(lambda: len(solve.log) == 2)
    lose(whole)
    solve.world(seconds=0.05)
    end()
    assert json.loads(solve.out.read_text()) == json.loads(alone.out.read_text())
    (died,) = (row for row in solve.rows if not row.ok)
    assert (died.status, died.attempt) == ("killed", 1) and "its machine was lost" in died.reason
    done = {row.task: row for row in solve.rows if row.ok}
    assert done[died.task].attempt == 2
    assert all(row.attempt == 1 for row in done.values() if row.task != died.task)
    assert {name: row.votes for name, row in done.items()} == {row.task: row.votes for row in alone.rows}
    assert all(row.place.host for row in solve.rows)
    assert len(lines(solve.results, solving.ROWS.name)) == 7


def test_a_kind_of_which_no_machine_is_left_is_said_and_the_others_go_on(whole, tmp_path, shipped, monkeypatch):
    monkeypatch.setattr(RayExecutor, "patience_s", 1.0)
    bench, watch = Bench(tmp_path), Watch()
    bench.world({**WORLD, "cards": CARDS}, seconds=30)
    fleet = Fleet(whole.ray, (Kind("L4", 1), Kind("T4", 1)), bench.command)
    config = bench.config(contexts=(256, 512))

    def run():
        with pytest.raises(UserError, match="has lost its last machine with L4"):
            pipeline.bench_fleet(config, shipped, watch, fleet, accuracy=False)
        return True

    end = in_thread(run)
    waited(lambda: len(begun(bench.file)) >= 2)
    lose(whole, "L4")
    bench.world({**WORLD, "cards": CARDS}, seconds=0.05)
    assert end()
    assert [row.status for row in Store(config.results / "t4").rows().values()] == ["ok", "ok"]
    assert all(row.ok for row in Store(config.results / "l4").rows().values())


# ---- Two kinds of card


def test_two_kinds_of_card_have_a_record_each_and_stand_side_by_side(nodes, tmp_path):
    world = tmp_path / "world.json"
    world.write_text(json.dumps({**WORLD, "cards": CARDS}))
    words = ["bench", "qwen-0.5b", "--precisions", "fp32", "--contexts", "256 512", "--no-accuracy",
             "--ray", nodes.made.address, "--results", "both"]  # fmt: skip
    done = run_cli(world, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for card in ("t4", "l4"):
        rows = list(Store(tmp_path / "both" / card).rows().values())
        assert [row.cell.context for row in rows] == [256, 512]
        assert all((row.place.card, row.place.attempt) == ("0", 1) and row.place.host for row in rows)
        assert {row.cell.device_name for row in rows} == {card.upper()}
        assert list((tmp_path / "both" / card).glob("*.csv"))
    beside = done.stdout[done.stdout.rindex("model") :]
    assert re.search(r"^model +prec +seq +L4 +T4", beside) and len(re.findall("^Qwen|^qwen", beside, re.M)) == 2
    # Again: all from the record.
    before = lines(tmp_path / "both" / "t4")
    again = run_cli(world, *words, cwd=tmp_path)
    assert again.returncode == 0 and lines(tmp_path / "both" / "t4") == before
    # On one kind too.
    alone = run_cli(world, *words, "--on", "t4", cwd=tmp_path)
    assert alone.returncode == 0 and lines(tmp_path / "both" / "t4") == before and "from the record" in alone.stdout


# ---- The driver ends
ROWS_OF_CPU = "rows/a-red-cpu"  # by the stand-in's name of its device


def _interruptible():
    """A background job of a shell ignores SIGINT, and so would what it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start_cli(world, *words, cwd, **more):
    return subprocess.Popen(
        [sys.executable, CLI, str(world), *words], cwd=cwd, env=environment(cwd) | more, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, preexec_fn=_interruptible,
    )  # fmt: skip


def no_process_is_left():
    waited(lambda: not marked(MARK), within_s=20)


def test_a_sweep_whose_driver_is_killed_leaves_no_process_and_goes_on(nodes, tmp_path):
    world = tmp_path / "world.json"
    world.write_text(json.dumps(WORLD | {"seconds": 1.0}))
    words = [*SWEEP, "--ray", nodes.made.address]
    run = start_cli(world, *words, cwd=tmp_path)
    waited(lambda: len(begun(world)) >= 4)
    run.kill()
    run.communicate()
    no_process_is_left()
    held = lines(tmp_path / ROWS_OF_CPU)
    assert 1 <= len(held) < 8
    world.write_text(json.dumps(WORLD))
    at_kill = len(begun(world))
    done = run_cli(world, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    after = lines(tmp_path / ROWS_OF_CPU)
    assert after[: len(held)] == held and len(after) == 8
    assert len(Store(tmp_path / ROWS_OF_CPU).rows()) == 8 and len(begun(world)) == at_kill + 8 - len(held)


def test_a_run_whose_driver_is_killed_leaves_no_process_and_goes_on(nodes, tmp_path, arc_folder):
    solve = Solve(tmp_path, arc_folder, count=8)
    challenges = tmp_path / "challenges.json"
    challenges.write_text(json.dumps({
        task.id: {
            "train": [{"input": d.input, "output": d.output} for d in task.demonstrations],
            "test": [{"input": grid} for grid in task.test_inputs],
        }
        for task in solve.tasks
    }))  # fmt: skip
    solve.world(seconds=1.0)
    words = ["solve", str(arc_folder), "--tasks", str(challenges), "--precision", "fp32", "--context", "512",
             "--steps", "4", "--views", "2", "--passes", "1", "--device", "cpu", "--budget-hours", "0.1",
             "--results", "rows", "--ray", nodes.made.address]  # fmt: skip
    run = start_cli(solve.file, *words, cwd=tmp_path)
    waited(lambda: len(solve.log) >= 4)
    run.kill()
    run.communicate()
    no_process_is_left()
    held = lines(tmp_path / "rows", solving.ROWS.name)
    assert 1 <= len(held) < 8
    solve.world()
    done = run_cli(solve.file, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    after = lines(tmp_path / "rows", solving.ROWS.name)
    rows = Store(tmp_path / "rows", kind=solving.ROWS).rows().values()
    assert after[: len(held)] == held and len(after) == 8
    assert sorted((row.task, row.attempt) for row in rows) == [(task.id, 1) for task in solve.tasks]
    assert solve.answered() == {task.id for task in solve.tasks}


def test_control_c_ends_a_sweep_on_a_local_ray_and_leaves_a_record_that_goes_on(tmp_path):
    """As a terminal sends it: to all processes of the command."""
    world = tmp_path / "world.json"
    world.write_text(json.dumps(WORLD | {"seconds": 1.0}))
    short = {"RAY_TMPDIR": "/tmp"}
    run = start_cli(world, *SWEEP, "--ray", cwd=tmp_path, **short)
    waited(lambda: len(begun(world)) >= 2)
    os.killpg(run.pid, signal.SIGINT)
    _, error = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "interrupted; every finished cell is in the record" in error and "Traceback" not in error
    no_process_is_left()
    held = lines(tmp_path / ROWS_OF_CPU)
    assert 1 <= len(held) < 8
    # Without Ray too: the record does not say by what it is to go on.
    world.write_text(json.dumps(WORLD))
    assert run_cli(world, *SWEEP, "--results", ROWS_OF_CPU, "--force", cwd=tmp_path).returncode == 0
    after = lines(tmp_path / ROWS_OF_CPU)
    assert after[: len(held)] == held and len(after) == 8
