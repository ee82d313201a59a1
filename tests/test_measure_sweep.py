"""The sweep with a stand-in for its worker: order, failures as rows, resume. The real ones are in test_end_to_end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.sweep import CARD, EMULATED, WORLD, Bench, Watch

from harness.analysis.verdict import verdict
from harness.catalog import accelerators
from harness.errors import UserError
from harness.hardware import device_lock
from harness.hardware.cpu_load import CpuMeter
from harness.hardware.info import Device
from harness.measure import sweep
from harness.predict import calibration_files, prediction
from harness.records.cell import Goal, Recipe
from harness.records.store import Store, read
from harness.report.frame import summary_frame
from harness.workers.local import LocalExecutor
from harness.workers.look import reserve

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


# --- on a card


def test_a_card_is_soaked_once_and_less_before_the_later_cells(bench):
    """Longest before the first cell that runs; a cell that is lost has not warmed it."""
    bench.world(WORLD, device=CARD, ends={"tiny bf16 64": "lost"})
    done, _ = bench.run(contexts=(64, 128, 256), sample_seconds=60)
    assert [row.status for row in done.rows] == ["crashed", "ok", "ok"]
    assert [seconds["soak_seconds"] for seconds in bench.seconds()] == [180.0, 180.0, 45.0]
    assert [seconds["arc_seconds"] for seconds in bench.seconds()] == [60.0] * 3


def test_who_samples_shortly_is_soaked_shortly(bench):
    bench.world(WORLD, device=CARD)
    bench.run(contexts=(64, 128), sample_seconds=6)
    assert [seconds["soak_seconds"] for seconds in bench.seconds()] == [18.0, 18.0]


def on_two_cards(bench, **cells):
    """What is said of a sweep's cells, on two cards."""
    executors, watch = [LocalExecutor(bench.command) for _ in range(2)], Watch()
    with executors[0], reserve(executors[0], "auto") as report:
        sweep.run_on(report, bench.config(sample_seconds=60, **cells), watch, executors, CpuMeter())
    return watch.cells


def test_each_of_two_cards_is_soaked_for_long_once(bench):
    """Cells that have begun count, not those that have ended: short and long ones are on two cards."""
    bench.world(WORLD, device=CARD, seconds=0.2)
    on_two_cards(bench, names=("bf16", "fp32"), contexts=(64, 128, 256))
    assert sorted(seconds["soak_seconds"] for seconds in bench.seconds()) == [45.0] * 4 + [180.0] * 2


def test_a_model_in_one_precision_has_one_card_and_is_expected_to_take_as_long(bench):
    bench.world(WORLD, device=CARD)
    cells = on_two_cards(bench, contexts=(64, 128, 256))
    seconds = [seconds for *_, seconds, _ in cells]
    assert [after for *_, after in cells] == pytest.approx([sum(seconds[1:]), seconds[2], 0.0])


def test_on_a_cpu_nothing_is_soaked_and_arc_s_lengths_are_timed_where_they_are_asked_for(bench):
    bench.run(contexts=(512,))
    assert (bench.seconds()[-1]["soak_seconds"], bench.seconds()[-1]["arc_seconds"]) == (0.0, 0.0)
    # The row that is there does not answer for them; the one that has them does, and also without being asked for them.
    bench.will_measure(arc_step_s=[3.0, 3.1], arc_step_tokens=[900, 901], arc_pack_tokens=2048)
    done, _ = bench.run(contexts=(512,), arc_lengths=True)
    assert bench.seconds()[-1]["arc_seconds"] == 5.0
    assert done.rows[0].arc_step_s == (3.0, 3.1)
    assert bench.run(contexts=(512,), arc_lengths=True)[0].rows == bench.run(contexts=(512,))[0].rows == done.rows
    assert len(bench.jobs()) == 2


def test_a_lost_card_is_measured_again_when_asked(bench):
    bench.world(WORLD, device=CARD, ends={"tiny bf16 256": "lost"})
    assert [row.status for row in bench.run()[0].rows] == ["crashed", "ok"]
    bench.world(WORLD, device=CARD)
    assert [row.status for row in bench.run()[0].rows] == ["crashed", "ok"]
    assert [row.status for row in bench.run(retry=True)[0].rows] == ["ok", "ok"]


def test_what_a_card_said_stands_in_the_record_and_the_csv(bench):
    states = [{"sm_mhz": 1590.0, "celsius": 70.0, "watts": 60.0, "throttle": []}]
    states += [{"sm_mhz": 1230.0, "celsius": 81.0, "watts": 69.0, "throttle": ["heat", "power cap"]}]
    bench.world(WORLD, device=CARD, measured={"card": states, "soak_s": 77.0})
    bench.run(contexts=(256,))
    (row,) = read(bench.results / "records.jsonl")[0]
    assert [state.throttle for state in row.card] == [(), ("heat", "power cap")]
    (columns,) = summary_frame([row], Goal(12, 1000, 400))
    assert [columns[name] for name in ("soak_s", "sm_mhz_before", "sm_mhz_after", "celsius_after", "watts_after")] == [
        77.0, 1590.0, 1230.0, 81.0, 69.0
    ]  # fmt: skip
    assert columns["throttle"] == "heat + power cap"


@pytest.mark.parametrize(("device", "bound"), [(CARD, True), (WORLD["device"], False)])
def test_the_row_of_int8_over_random_weights_says_that_it_is_a_lower_bound_on_a_card(bench, device, bound):
    bench.world(WORLD, device=device)
    done, _ = bench.run(names=("int8", "int4"), contexts=(256,))
    assert [row.status for row in done.rows] == ["ok", "ok"]
    assert [any("lower bound" in note for note in row.notes) for row in done.rows] == [bound, False]


# --- the micro-batch that a card has by default


def on_a_card(bench, **world):
    """A T4 whose 13.5 GiB of weights leave half a GiB for activations: 52,428 tokens of the tiny model's 10 KiB."""
    bench.world(WORLD, **({"device": CARD, "memory": {"weights": 27 << 29}} | world))
    return bench.run(contexts=(256, 4096), fill_memory=True, cap_seconds=1000)[0].rows


def test_a_card_is_measured_with_as_many_sequences_at_once_as_it_has_room_for(bench):
    rows = on_a_card(bench)
    assert bench.jobs() == ["tiny bf16 256 b16", "tiny bf16 4096 b8"]
    assert [row.cell.recipe.micro_steps_per_step for row in rows] == [1, 2]
    assert [row.requested_micro_batch for row in rows] == [None, None]
    assert on_a_card(bench) == rows and len(bench.jobs()) == 2


def test_on_a_cpu_and_where_the_user_chose_it_stays(bench):
    bench.run(contexts=(256,), fill_memory=True)
    bench.world(WORLD, device=CARD, ends={"tiny bf16 256 b4": "oom"})
    done, _ = bench.run(contexts=(256,), recipe=Recipe(micro_batch=4))
    assert bench.jobs() == ["tiny bf16 256", "tiny bf16 256 b4"]
    assert [row.status for row in done.rows] == ["oom"]


def test_where_memory_runs_out_half_of_it_is_measured_under_the_same_key(bench):
    whole = on_a_card(bench)
    (bench.results / "records.jsonl").unlink()
    rows = on_a_card(bench, ends={"tiny bf16 256 b16": "oom", "tiny bf16 256 b8": "oom"})
    assert bench.jobs()[2:] == ["tiny bf16 256 b16", "tiny bf16 256 b8", "tiny bf16 256 b4", "tiny bf16 4096 b8"]
    assert [row.key for row in rows] == [row.key for row in whole]
    row = rows[0]
    assert (row.status, row.cell.recipe.micro_batch, row.requested_micro_batch) == ("ok", 4, 16)
    assert row.notes == ("micro-batch 16 ran out of memory; this is of micro-batch 4",)
    # Started again it finds its row, and in the file there are no others.
    assert on_a_card(bench) == rows == read(bench.results / "records.jsonl")[0] and len(bench.jobs()) == 6


def test_what_is_too_slow_to_start_is_tried_with_fewer_sequences(bench):
    """The smallest run of 4096 tokens, eight sequences at once, is predicted to take over 60 s."""
    bench.world(WORLD, device=CARD, memory={"weights": 27 << 29})
    done, _ = bench.run(contexts=(4096,), fill_memory=True, cap_seconds=60)
    (row,) = done.rows
    assert row.ok and row.cell.recipe.micro_batch < 8 == row.requested_micro_batch
    assert row.notes[0].startswith("micro-batch 8 not started: about")


def test_too_big_is_what_does_not_fit_one_sequence_at_a_time(bench):
    rows = on_a_card(bench, ends={f"tiny bf16 256{batch}": "oom" for batch in (" b16", " b8", " b4", " b2", "")})
    assert [(row.status, row.cell.recipe.micro_batch) for row in rows] == [("oom", 1), ("skipped", 8)]
    assert verdict(rows[0], None, 12) == "too big"
    assert len(bench.jobs()) == 5


def test_weights_that_do_not_fit_are_tried_once(bench):
    rows = on_a_card(bench, ends={"tiny bf16 256 b16": "heavy"})
    assert [row.status for row in rows] == ["oom", "skipped"]
    assert bench.jobs() == ["tiny bf16 256 b16"]


def test_what_surely_does_not_fit_is_halved_before_it_is_started(bench):
    """2.5 GiB of every sequence: sixteen of them are more than a T4 has, and so are eight."""
    rows = on_a_card(bench, memory={}, per_sequence=5 << 29)
    assert bench.jobs() == ["tiny bf16 256 b4", "tiny bf16 4096 b4"]
    assert "micro-batch 16 not started: predicted" in rows[0].notes[0]
    assert rows[0].notes[0].endswith("; this is of micro-batch 4")
    assert on_a_card(bench, memory={}, per_sequence=5 << 29) == rows and len(bench.jobs()) == 2
