"""A sweep on a card, by a stand-in: soaking, what the card says, and how many sequences go at once."""

from pathlib import Path

import pytest
from helpers.sweep import CARD, WORLD, Bench, Watch

from harness.analysis.verdict import verdict
from harness.catalog import accelerators
from harness.hardware.cpu_load import CpuMeter
from harness.measure import sweep
from harness.predict import calibration_files
from harness.records.cell import Goal, Recipe
from harness.records.store import read
from harness.report.frame import summary_frame
from harness.workers.local import LocalExecutor
from harness.workers.look import reserve

# How much slower than its probe a CPU is taken to be in large products, by the calibration that comes with the program.
SLOWER = calibration_files.for_cpu(accelerators.cpu("any", 1, {}), Path("none"))[1].slowdown["product"]


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setenv("TTFT_BENCH_CACHE", str(tmp_path / "traces"))
    return Bench(tmp_path)


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
