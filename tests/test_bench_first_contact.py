"""The report of a first contact: whatever a step does, the others run, and what failed is named with its reason."""

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.records import row

from bench import commands, first_contact, kernel_check
from bench.contact_report import WIDTH, Finding, Report
from harness.errors import UserError
from harness.records.measurement import CROWDED
from harness.records.store import Store
from harness.train.ops import attention

CPU = torch.device("cpu")
SDPA = "attention=sdpa pointwise=plain"


@pytest.fixture
def contact(tmp_path):
    return first_contact.Contact("cpu", tmp_path, time.monotonic() + 300)


def fine(contact):
    """Holds."""
    yield Finding(True, "a thing", "as it should be")


def broken(contact):
    """Breaks after its first finding."""
    yield Finding(True, "the first", "well")
    raise ZeroDivisionError("division by zero\nsecond line")


def refused(contact):
    raise UserError("no such card; use --device cpu")
    yield


def interrupted(contact):
    yield Finding(True, "before", "well")
    raise KeyboardInterrupt


def hanging(contact):
    """Prints a line and goes on for ever."""
    code = "import time; print('{}', flush=True); time.sleep(600)"
    for line in commands.lines(time.monotonic() + 1.5, [sys.executable, "-c", code]):
        yield Finding(True, "line", line)


def text_of(contact, *steps):
    report = Report()
    first_contact.run(contact, {step.__name__: step for step in steps}, report)
    return report, report.text("a card")


def test_a_step_that_fails_stops_no_other_and_is_named(contact):
    report, text = text_of(contact, fine, broken, refused, hanging, fine)
    assert not report.held
    assert "broken: ZeroDivisionError: division by zero" in text and "second line" not in text
    assert "refused: no such card; use --device cpu" in text
    assert "hanging: not run to its end: the time was up" in text
    assert report.findings["hanging"][0] == Finding(True, "line", "{}")  # what came before counts
    assert [finding.held for finding in report.findings["fine"]] == [True]
    assert "3 held, 3 failed" in text


def test_ctrl_c_keeps_what_was_found_and_starts_nothing_more(contact):
    report, text = text_of(contact, fine, interrupted, broken)
    assert "a thing: as it should be" in text and "before: well" in text and "stopped by Ctrl-C" in text
    assert "broken" not in report.findings and not report.held


def test_steps_after_the_end_of_the_time_are_named(contact):
    contact.ends_at = time.monotonic() - 1
    report, text = text_of(contact, fine)
    assert not report.held and "fine: fine: not run to its end: the time was up" in " ".join(text.split())


def test_all_held_only_if_something_was_tried():
    report = Report()
    assert not report.held
    report.add("gpus", Finding(None, "--gpus", "there is one device here"))
    report.add("device", Finding(True, "cpu", "x" * 300 + " word" * 40))
    assert report.held
    assert max(len(line) for line in report.text("a card").splitlines() if "xxx" not in line) <= WIDTH


def test_a_command_ends_with_its_reader():
    lines = commands.lines(time.monotonic() + 60, [sys.executable, "-c",
                           "import os, time; print(os.getpid(), flush=True); time.sleep(600)"])  # fmt: skip
    pid = int(next(lines))
    lines.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_code_and_every_line_of_a_command():
    code = "import sys; print('one'); sys.stderr.write('two'); sys.exit(3)"
    *output, last = commands.lines(time.monotonic() + 60, [sys.executable, "-c", code])
    assert sorted(output) == ["one", "two"] or output == ["twoone"]
    assert last.endswith(" 3")


@pytest.mark.parametrize(
    ("predicted_s", "predicted_bytes", "notes", "seconds_held", "memory_held"),
    [
        (1.0, 8 * 2**30, (), True, True),
        (2.1, 8 * 2**30, (), False, True),
        (0.4, 8 * 2**30, (), False, True),
        (0.4, 8 * 2**30, (CROWDED,), None, True),  # others slowed it: says nothing of the prediction
        (1.0, 13 * 2**30, (), True, False),
        (1.0, 5 * 2**30, (), True, False),
    ],
)
def test_predictions_hold_within_their_factors(contact, predicted_s, predicted_bytes, notes, seconds_held, memory_held):
    contact.cells = [replace(row(), micro_s=(1.0, 1.0, 1.0), memory={"steady": {"process": 8 * 2**30}}, notes=notes,
                             predicted_micro_s=predicted_s, predicted_peak_bytes=predicted_bytes)]  # fmt: skip
    seconds, memory = first_contact.predictions(contact)
    assert (seconds.held, memory.held) == (seconds_held, memory_held)


@pytest.mark.parametrize("stopped", [KeyboardInterrupt, commands.TimeUp, None])
def test_cells_that_were_measured_count_whatever_ends_the_bench(contact, monkeypatch, stopped):
    """One row that is right, one out of memory; then the end."""
    lost = replace(row(), key="other", status="oom", reason="CUDA out of memory")

    def harness(ends_at, *arguments):
        results = Store(Path(arguments[arguments.index("--results") + 1]))
        for one in (row(), lost):
            results.add(one)
        if stopped:
            raise stopped
        return 0, "done"

    monkeypatch.setattr(first_contact.commands, "harness", harness)
    report, text = text_of(contact, first_contact.cells, fine)
    assert [finding.held for finding in report.findings["cells"]] == [True, False, *([False] if stopped else [])]
    assert "oom: CUDA out of memory" in text and ("fine" in report.findings) == (stopped is not KeyboardInterrupt)
    assert [one.status for one in contact.cells] == ["ok", "oom"]


def test_without_a_second_card_gpus_do_not_apply(contact):
    assert [finding.held for finding in first_contact.gpus(contact)] == [None]


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_every_kernel_of_the_device_is_compared(kind):
    named = " ".join(kernel_check.kernels_of(kind))
    parts = kernel_check.KERNELS[kind]
    assert all(f"{part}={name}" in named for part, names in parts.items() for name in names)
    assert named.endswith("auto")


def test_here_every_kernel_learns_as_the_plain_step():
    results = list(kernel_check.comparisons(CPU, ["fp32", "bf16"], ["plain", SDPA]))
    assert len(results) == 8 and all(result["held"] for result in results)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_kernel_that_computes_something_else_is_found_out(monkeypatch, precision):
    """The second of two kernels scales its scores by one part in ten too much."""
    right = attention.cpu_attention.attend

    def wrong(query, key, value, scale, window):
        return right(query, key, value, 1.1 * scale, window)

    monkeypatch.setattr(attention.cpu_attention, "attend", wrong)
    results = kernel_check.comparisons(CPU, [precision], [SDPA, "plain"])
    held = {result["subject"]: result["held"] for result in results}
    assert [value for subject, value in held.items() if "sdpa" in subject] == [True, True]
    assert [value for subject, value in held.items() if "sdpa" not in subject] == [False, False]


def test_a_kernel_that_does_not_run_here_is_no_failure():
    (only,) = kernel_check.comparisons(CPU, ["fp32"], ["attention=flash pointwise=plain"])
    assert only["held"] is None and "is not for cpu" in only["text"]


def test_guessed_tokens_that_change_most_texts_do_not_hold(contact, monkeypatch):
    """Some may differ, for two tokens can be as likely to within rounding."""
    ways = [{"guesses": n, "texts": 40, "steps": steps, "seconds": 2.0, "differ": differ}
            for n, steps, differ in ((0, 100, 0), (3, 40, 8), (16, 25, 9))]  # fmt: skip
    monkeypatch.setattr(
        commands, "lines", lambda *_: iter(["5 tasks", json.dumps(ways), "exit code of the command: 0"])
    )
    held, failed = first_contact.answers(contact)
    assert held.held and held.text == "2.5 times fewer steps, 1.0 times as fast, 8 of 40 texts differ"
    assert not failed.held and "4.0 times fewer" in failed.text
    monkeypatch.setattr(
        commands, "lines", lambda *_: iter(["Traceback", "  File x", "UserError: busy", "", "exit code: 1"])
    )
    with pytest.raises(RuntimeError, match=r"no answers: UserError: busy$"):
        list(first_contact.answers(contact))
