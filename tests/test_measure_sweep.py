"""The sweep with a stand-in for its worker: order, failures as rows, resume. The real ones are in test_end_to_end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.sweep import EMULATED, WORLD, Bench, Watch

from harness.catalog import accelerators
from harness.errors import UserError
from harness.hardware import device_lock
from harness.hardware.info import Device
from harness.measure import sweep
from harness.predict import calibration_files, prediction
from harness.records.cell import Recipe
from harness.records.store import Store, read

# How much slower than its probe a CPU is taken to be in large products, by the calibration that comes with the program.
SLOWER = calibration_files.for_cpu(accelerators.cpu("any", 1, {}), Path("none"))[1].slowdown["product"]


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setenv("TTFT_BENCH_CACHE", str(tmp_path / "traces"))
    return Bench(tmp_path)


def test_every_cell_is_measured_once(bench):
    done, watch = bench.run(names=("bf16", "int4"))
    assert bench.jobs() == ["tiny bf16 256", "tiny bf16 512", "tiny int4 256", "tiny int4 512"]
    assert [row.status for row in done.rows] == ["ok"] * 4
    assert done.rows[2].cell.compute_dtype == "bf16"
    assert watch.expected == 4
    again, watch = bench.run(names=("bf16", "int4"))
    assert len(bench.jobs()) == 4
    assert again.rows == done.rows
    assert [measured for *_, measured in watch.rows] == [False] * 4


def test_fresh_measures_again_and_keeps_the_old_rows(bench):
    bench.run()
    bench.run(fresh=True)
    assert len(bench.jobs()) == 4
    assert len((bench.results / "records.jsonl").read_text().splitlines()) == 4
    assert len(read(bench.results / "records.jsonl")[0]) == 2


def test_other_versions_of_libraries_are_measured_again(bench, monkeypatch):
    bench.run()
    monkeypatch.setattr(sweep, "versions", lambda: {"torch": "99.0"})
    bench.run()
    assert len(bench.jobs()) == 4


@pytest.mark.parametrize(
    ("end", "status", "reason"),
    [
        ("oom", "oom", "it was oom"),
        ("unsupported", "unsupported", "it was unsupported"),
        ("kill", "killed", "SIGKILL"),
        ("segfault", "crashed", "SIGSEGV"),
        ("raise", "crashed", "the kernel is broken"),
    ],
)
def test_a_failure_is_a_row_and_the_sweep_goes_on(bench, end, status, reason):
    bench.will(**{"tiny bf16 256": end})
    done, _ = bench.run(names=("bf16", "int4"))
    first, second, *rest = done.rows
    assert first.status == status
    assert reason in first.reason
    assert second.status == ("skipped" if end == "oom" else "ok")
    assert [row.status for row in rest] == ["ok", "ok"]
    assert len(Store(bench.results).rows()) == 4


def test_a_cell_that_hangs_is_ended_and_the_sweep_goes_on(bench, monkeypatch):
    """The cap of 2 s lets the cell start (0.1 s to load, by the estimate); it is ended a moment after twice that."""
    monkeypatch.setattr(prediction, "_LOAD_S", 0.1)
    bench.will(**{"tiny bf16 64": "hang"})
    done, _ = bench.run(contexts=(64, 128), cap_seconds=2.0, sample_seconds=0.1)
    assert [row.status for row in done.rows] == ["timeout", "ok"]
    assert "ended after 4 s" in done.rows[0].reason


def test_what_crashed_by_chance_is_measured_again_when_asked(bench):
    bench.will(**{"tiny bf16 256": "kill", "tiny bf16 512": "unsupported"})
    bench.run()
    bench.will()
    assert [row.status for row in bench.run()[0].rows] == ["killed", "unsupported"]
    assert [row.status for row in bench.run(retry=True)[0].rows] == ["ok", "unsupported"]


def test_an_emulated_dtype_is_not_started_blindly_and_its_native_is_measured_beside(bench):
    done, _ = bench.run(names=("fp16",))
    assert bench.jobs() == ["tiny bf16 256", "tiny bf16 512"]
    slow, slower, *natives = done.rows
    assert (slow.status, slower.status) == ("too_slow", "too_slow")
    assert "use bf16" in slow.reason
    # 256e9 forward FLOPs at 1e9, as many backward at 1e8: 2816 s at the CPU's share of its rate, four times, and 8 s.
    assert slow.estimate_s == pytest.approx(4 * 256 * (1 + 10) * SLOWER + 8, rel=1e-3)
    assert [row.cell.why for row in natives] == ["native here; fp16 is emulated"] * 2
    noisy = {**WORLD, "rates": {**WORLD["rates"], "fp16": {**EMULATED, "backward": 1.1e8}}}
    bench.world(noisy)
    bench.run(names=("fp16",))
    assert len((bench.results / "records.jsonl").read_text().splitlines()) == 4


def test_a_slow_native_dtype_is_tried_at_the_shortest_context_under_the_cap(bench):
    rates = {"fp32": {"forward": 2e9, "backward": 2e9, "native": True}}
    bench.world(WORLD, rates=rates)
    done, _ = bench.run(names=("fp32",), contexts=(1024, 2048), cap_seconds=8 + 4 * 100 * SLOWER)
    # n tokens take n s at the CPU's share of its rate, four times, and 8 s: 64 tokens are under the cap, 128 are not.
    assert bench.jobs() == ["tiny fp32 64"]
    assert [(row.cell.context, row.status) for row in done.rows] == [(64, "ok"), (1024, "too_slow"), (2048, "too_slow")]


def test_contexts_beyond_the_window(bench):
    done, _ = bench.run(contexts=(256, 8192), windows=(4096,))
    assert [row.status for row in done.rows] == ["ok", "beyond_window"]
    assert "4096 tokens" in done.rows[1].reason
    with pytest.raises(UserError, match="beyond the window"):
        bench.run(contexts=(8192,))


def test_a_model_that_transformers_does_not_know_is_a_row(bench):
    bench.world(WORLD, trace={"unsupported": "no such architecture"})
    done, _ = bench.run(contexts=(256,))
    assert [(row.status, row.reason) for row in done.rows] == [("unsupported", "no such architecture")]


def test_a_survey_that_dies_is_one_line(bench):
    bench.file.write_text("{}")
    with pytest.raises(UserError, match=r"looking at the device failed: KeyError: 'device'"):
        bench.run()


def test_what_the_user_must_mend_is_said_by_the_survey(bench):
    bench.world({"device": {"error": "no CUDA here"}, "rates": {}})
    with pytest.raises(UserError, match="no CUDA here"):
        bench.run()


def test_a_corrupt_record_is_reported_and_used(bench):
    bench.run()
    with (bench.results / "records.jsonl").open("a") as f:
        f.write("{half\n")
    _, watch = bench.run()
    assert any("1 corrupt lines" in note for note in watch.notes)
    assert len(bench.jobs()) == 2


def device(uuid="cpu"):
    return Device("cpu", "a CPU", 1, uuid=uuid)


def test_a_device_that_another_one_measures_on_is_not_even_probed(bench):
    with (
        device_lock.hold(device()),
        pytest.raises(UserError, match="another bench or ttft is measuring on cpu; let it"),
    ):
        bench.run()
    assert bench.asked() == ["find_device"]


def test_a_sweep_on_two_cards_holds_both(bench):
    bench.world(WORLD, device={**WORLD["device"], "partners": ["second"]})
    with device_lock.hold(device("second")), pytest.raises(UserError, match="measuring on one of these cards"):
        bench.run()
    done, _ = bench.run()  # and lets go of both
    assert all(row.ok for row in done.rows)
    with device_lock.hold(device("second")):
        pass


def test_the_device_is_held_while_cells_are_measured(bench):
    held = []

    class Trying(Watch):
        def phase(self, event):
            with pytest.raises(device_lock.Busy), device_lock.hold(device()):
                pass
            held.append(event)

    bench.run(watch=Trying())
    assert held


def test_time_left_counts_what_will_be_started(bench):
    _, watch = bench.run(names=("bf16",), contexts=(256, 512))
    (_, _, _, first, after), (_, _, _, second, end) = watch.cells
    assert 0 < first <= second + 0.1
    assert second == pytest.approx(after)
    assert end == 0


SWEEP = """
import sys, json; sys.path[:0] = [{tests!r}, {root!r}]
from pathlib import Path
from helpers.sweep import Bench
b = Bench.__new__(Bench)
b.folder = Path({folder!r}); b.results, b.file = b.folder / "results", b.folder / "world.json"
b.run(names=("fp32", "bf16", "int4"), contexts=(64, 128, 256))
"""


def test_killed_at_any_point_it_goes_on(bench):
    """Nine cells of 0.15 s; the sweep is killed again and again, at other points, until one run gets through."""
    bench.will(seconds=0.15)
    tests = Path(__file__).parent
    code = SWEEP.format(tests=str(tests), root=str(tests.parent), folder=str(bench.folder))
    for patience in range(1, 60):
        process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
        try:
            assert process.wait(0.9 + 0.17 * patience) == 0
            break
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    rows = read(bench.results / "records.jsonl")[0]
    assert len(rows) == 9
    assert all(row.ok for row in rows)
    lines = (bench.results / "records.jsonl").read_bytes()
    assert lines.count(b"\n") == 9  # nothing measured was measured again
    # What was run but not written is what a kill interrupted: at most one cell a kill.
    assert len(bench.jobs()) <= 9 + patience


def test_what_surely_cannot_fit_is_not_started(bench):
    """The trace of every cell holds 100 GiB; the device has 8."""
    bench.world(WORLD, memory={"weights": 100 << 30})
    done, _ = bench.run(contexts=(64,))
    assert {row.status for row in done.rows} == {"skipped"} and not bench.jobs()
    assert "predicted 100" in done.rows[0].reason and "the device has 8.0" in done.rows[0].reason


def test_what_was_predicted_stands_in_the_row(bench):
    bench.world(WORLD, memory={"weights": 1 << 30})
    done, _ = bench.run(contexts=(64,))
    (row,) = done.rows
    assert row.ok and row.predicted_micro_s > 0.01 and row.predicted_peak_bytes > 1 << 30
    assert (done.folder / "records.jsonl").read_text().count("predicted_micro_s") == 1


def test_the_shorter_context_keeps_the_micro_batch_that_was_asked_for(bench):
    bench.world(WORLD, rates={"fp32": {"forward": 2e9, "backward": 2e9, "native": True}})
    bench.run(names=("fp32",), contexts=(2048,), cap_seconds=8 + 8 * 100 * SLOWER, recipe=Recipe(micro_batch=2))
    assert bench.jobs() == ["tiny fp32 64 b2"]
