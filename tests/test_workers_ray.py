"""Jobs on two Ray nodes of this machine: the same events, results and ends as in a process of this machine."""

import json
import re
import socket
import sys
import threading
import time

import pytest
from helpers.cli import RAY_VERSION, VERSION
from helpers.cluster import SWEEP, add_node, marked, run_cli, two_nodes
from helpers.sweep import WORKER, WORLD

from harness.cli import app
from harness.errors import UserError
from harness.workers import cluster, ray
from harness.workers.cluster import Kind
from harness.workers.local import RunLimits
from harness.workers.process import Outcome
from harness.workers.ray_pool import RayPool

pytest.importorskip("ray")
CELL = "harness.measure.worker:measure_cell"
PAYLOAD = {"cell": {"model": {"name": "tiny"}, "precision": "bf16", "context": 256, "recipe": {"micro_batch": 1}}}


@pytest.fixture(scope="module")
def nodes():
    with two_nodes() as (made, handles):
        yield cluster.connect(made.address), made, handles


@pytest.fixture
def world(tmp_path):
    file = tmp_path / "world.json"

    def is_now(**changes):
        file.write_text(json.dumps(WORLD | changes))
        return sys.executable, WORKER, str(file)

    return is_now


@pytest.fixture
def run(nodes, tmp_path):
    def job(command, events=None, **limits):
        executor = ray.RayExecutor(nodes[0], Kind("cpu", 2, 1), command)
        heard = events if events is not None else []
        return executor.run(CELL, PAYLOAD, RunLimits(log=tmp_path / "log", **limits), heard.append)

    return job


def test_a_job_gives_its_events_its_result_and_its_place(run, world):
    events: list = []
    outcome = run(world(), events)
    assert outcome.status == "ok" and outcome.result["micro_s"] and {"event": "phase", "phase": "load"} in events
    assert outcome.place and outcome.place.host == socket.gethostname() and outcome.place.attempt == 1


def test_a_job_that_dies_is_an_outcome_as_it_is_here_and_its_log_comes_back(run, world, tmp_path):
    killed = run(world(ends={"tiny bf16 256": "kill"}))
    assert (killed.status, killed.place.attempt) == ("killed", 1)  # the machine is there: not done again
    raised = run(world(ends={"tiny bf16 256": "raise"}))
    assert raised.status == "crashed" and "the kernel is broken" in raised.reason
    assert "the kernel is broken" in (tmp_path / "log").read_text()
    late = run(world(ends={"tiny bf16 256": "hang"}), timeout_s=0.5)
    assert late.status == "timeout"


def test_what_is_asked_is_answered(nodes, world):
    executor = ray.RayExecutor(nodes[0], Kind("cpu", 2, 1), world())
    assert executor.ask("harness.hardware.probe:find_device", {})["name"] == WORLD["device"]["name"]


def test_a_refusal_is_the_users_to_mend(nodes, world, tmp_path):
    executor = ray.RayExecutor(nodes[0], Kind("cpu", 2, 1), world(refuse="no such folder there"))
    with pytest.raises(UserError, match="no such folder there"):
        executor.run("harness.solve.worker:load", {"index": 0}, RunLimits(log=tmp_path / "log"))


def test_a_machine_with_other_versions_is_refused_by_name(nodes, world):
    executor = ray.RayExecutor(nodes[0], Kind("cpu", 2, 1), world())
    executor.versions = executor.versions | {"torch": "1.0", "ttft-bench": "9.9"}
    with pytest.raises(
        UserError, match=rf"{socket.gethostname()} has ttft-bench .* \(9.9 here\), torch .* \(1.0 here\)"
    ):
        executor.ask("harness.hardware.probe:find_device", {})


def test_a_job_whose_node_is_lost_is_done_again_once_elsewhere(nodes, world, tmp_path):
    connected, made, handles = nodes
    executor = ray.RayExecutor(connected, Kind("cpu", 2, 1), world(seconds=60))
    outcomes = []

    def job(number):
        outcomes.append(executor.run(CELL, PAYLOAD, RunLimits(log=tmp_path / f"log{number}")))

    threads = [threading.Thread(target=job, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    log = tmp_path / "world.log"
    while not (log.exists() and log.read_text().count("\n") == 2):  # both are at work, one on each
        time.sleep(0.1)
    made.remove_node(handles.pop())
    world(seconds=0.05)
    for thread in threads:
        thread.join(60)
    assert [outcome.status for outcome in outcomes] == ["ok", "ok"]
    assert sorted(outcome.place.attempt for outcome in outcomes) == [1, 2]
    assert log.read_text().count("\n") == 3  # the lost one again, the other not
    handles.append(add_node(made))


def test_stopping_ends_the_jobs_processes(nodes, world, tmp_path):
    mark = "TTFT_BENCH_RAY_TEST"
    executor = ray.RayExecutor(nodes[0], Kind("cpu", 2, 1), ("env", f"{mark}=1", *world(seconds=60)))
    ended = []

    def job():
        try:
            executor.run(CELL, PAYLOAD, RunLimits(log=tmp_path / "log"))
        except KeyboardInterrupt:
            ended.append(time.monotonic())

    thread = threading.Thread(target=job)
    thread.start()
    while not (tmp_path / "world.log").exists():
        time.sleep(0.05)
    assert marked(mark)
    executor.stop()
    thread.join(20)
    assert ended
    until = time.monotonic() + 20
    while marked(mark) and time.monotonic() < until:
        time.sleep(0.1)
    assert not marked(mark)


# ---- A queue's workers


def heard_until(pool, wanted, within_s=60):
    """What the workers sent, but for where they are."""
    until, heard = time.monotonic() + within_s, []
    while time.monotonic() < until:
        heard += [(worker, sent) for worker, sent in pool.events(0.5) if not _is_place(sent)]
        if wanted(heard):
            return heard
    raise AssertionError(heard)


def _is_place(sent):
    return isinstance(sent, dict) and sent["event"] == "place" and sent["place"].host == socket.gethostname()


def test_a_pools_workers_take_job_after_job_and_one_that_dies_is_an_outcome(nodes, world):
    command = world(ends={"t1": "kill"})
    with RayPool(nodes[0], [Kind("cpu", 2, 1)], 2, command) as pool:
        for worker in range(2):
            pool.start(worker)
            pool.send(worker, "harness.solve.worker:load", {"index": worker})
        heard_until(pool, lambda heard: len(heard) == 2)
        job = {"attempt": 1, "views": 2}
        pool.send(0, "harness.solve.worker:solve", {"task": "t0", **job})
        pool.send(1, "harness.solve.worker:solve", {"task": "t1", **job})
        heard = dict(heard_until(pool, lambda heard: len(heard) == 2))
        assert heard[0]["result"]["votes"] == [[["000", 2]]]
        assert isinstance(heard[1], Outcome) and heard[1].status == "killed"
        # Started again, it works again.
        pool.start(1)
        pool.send(1, "harness.solve.worker:solve", {"task": "t2", **job})
        assert heard_until(pool, bool)[0][1]["result"]["status"] == "ok"


# ---- Reaching a cluster


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "the Ray cluster has no cards; --device cpu uses its machines' processors"),
        (("--on", "h100"), "the Ray cluster has no cards"),
        (("--on", "t4", "--device", "cpu"), "--on chooses cards; it does not go with --device cpu"),
    ],
)
def test_what_the_cluster_lacks_is_one_line_and_nothing_runs(nodes, capsys, tmp_path, words, message):
    with pytest.raises(SystemExit) as end:
        app.main(["bench", "qwen-0.5b", "--results", str(tmp_path / "rows"), "--ray", nodes[1].address, *words])
    assert end.value.code == 2 and message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "rows").exists()


def one_line(done):
    assert done.returncode == 2, done.stderr + done.stdout
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "Traceback" not in done.stderr
    return errors[0]


def test_a_machine_with_another_version_is_named_and_nothing_runs(nodes, tmp_path):
    """The driver has another version of this program than what the machine says."""
    world = tmp_path / "world.json"
    world.write_text(json.dumps(WORLD))
    done = run_cli(world, *SWEEP, "--ray", nodes[1].address, cwd=tmp_path, **{VERSION: "9.9"})
    assert re.search(r"has ttft-bench \S+ \(9\.9 here\); install the same on all machines", one_line(done))
    assert not world.with_suffix(".log").exists() and not (tmp_path / "rows").exists()


def test_another_version_of_ray_is_said_with_both(nodes, tmp_path):
    import ray as library

    address = nodes[1].address
    done = run_cli(tmp_path / "world.json", *SWEEP, "--ray", address, cwd=tmp_path, **{RAY_VERSION: "2.0.1"})
    line = one_line(done)
    assert f"{address}: Ray cannot be reached: Version mismatch" in line
    assert f"Ray: {library.__version__}" in line and "Ray: 2.0.1" in line


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:1", "does not answer"),
        ("ray://head:10001", "the cluster's own address"),
        ("nonsense", "an address is HOST:PORT"),
    ],
)
def test_a_cluster_that_cannot_be_reached_is_one_line(monkeypatch, address, words):
    import ray as library

    monkeypatch.setattr(library, "is_initialized", lambda: False)
    with pytest.raises(UserError, match=words):
        cluster.connect(address)


def test_without_ray_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'ttft-bench\[ray\]'"):
        cluster.connect(None)


class Nodes:
    def __init__(self, *resources):
        self.resources = resources

    def nodes(self):
        return [{"Alive": True, "Resources": resources} for resources in self.resources]


T4 = {"CPU": 8.0, "GPU": 2.0, "accelerator_type:T4": 1.0}
L4 = {"CPU": 8.0, "GPU": 4.0, "accelerator_type:L4": 1.0}


def test_cards_are_counted_by_kind_and_chosen_by_name():
    mixed = Nodes(T4, T4, L4, {"CPU": 4.0})
    assert cluster.kinds(mixed, [], "auto") == [Kind("L4", 4), Kind("T4", 4)]
    assert cluster.kinds(mixed, ["t4"], "auto") == [Kind("T4", 4)]
    assert cluster.kinds(mixed, [], "cpu") == [Kind("cpu", 4, 4)]
    assert Kind("T4", 4).options(2) == {"num_gpus": 2, "num_cpus": 0, "accelerator_type": "T4"}
    assert Kind("cpu", 4, 8).options(1) == {"num_cpus": 8}


def test_a_kind_that_would_be_waited_for_for_ever_is_refused():
    with pytest.raises(UserError, match=r"--on h100: the Ray cluster has none; it has L4, T4"):
        cluster.kinds(Nodes(T4, L4), ["h100"], "auto")
    with pytest.raises(UserError, match="--device cpu uses its machines' processors"):
        cluster.kinds(Nodes({"CPU": 4.0}), [], "auto")
    with pytest.raises(UserError, match="does not go with --device cpu"):
        cluster.kinds(Nodes(T4), ["t4"], "cpu")
