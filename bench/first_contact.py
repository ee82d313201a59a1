"""The first run on a device that nobody has measured on: what holds there, and what does not, in one report.

    make first-contact [DEVICE=cuda:0]
    python -m bench.first_contact [--device auto] [--results results/first-contact] [--only "device kernels"]

Steps, each in processes of its own: the device and its probe, `harness doctor`, every kernel against the plain step
(bench.kernel_check), one cell per precision by `harness bench`, those cells against their predictions, `--gpus` where
there are several, a short `harness ttft` of arc-tiny, and its answers with guessed tokens beside those without. A step
that fails, hangs or crashes stops no other one.

The report goes to the screen and to report.txt in the results folder; exit code 1 where something did not hold. It
takes under ten minutes on a card and under five on a CPU: what the time does not reach is named as not run.
"""

import argparse
import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench import commands
from bench.contact_report import Finding, Report
from harness.catalog.precisions import PRECISIONS, native_dtype
from harness.errors import UserError, first_line
from harness.hardware.info import Device
from harness.records import arm, measurement, store
from harness.workers.local import LocalExecutor
from harness.workers.look import find, report_on

MINUTES = {"cuda": 9.5, "cpu": 4.75}
# A prediction of a device that nobody has calibrated holds within these factors; of memory also where it is no further
# off than what libraries and kernels hold beside a small model.
SECONDS_FACTOR, BYTES_FACTOR, BYTES_APART = 2.0, 1.5, 2**29
CELLS = {
    "cuda": ["qwen2.5-0.5b", "--contexts", "1024", "--sample-seconds", "6", "--weights", "random"],
    "cpu": ["arc-tiny", "--contexts", "256", "--sample-seconds", "5"],
}
DIFFERENT_SHARE = 0.2  # of texts, with guesses and without
ALWAYS = ["--no-accuracy", "--fresh", "--force"]
TTFT = ["arc-tiny", "--dataset", "generated", "--tasks", "6", "--views", "2", "--steps", "4", "--fresh",
        "--arms", "baseline, + color swap"]  # fmt: skip


@dataclass
class Contact:
    """What the steps share: options, the time they may take, and what the first step found out."""

    device: str
    results: Path
    ends_at: float
    found: Device | None = None
    native: str = "fp32"
    cells: list[measurement.Measurement] = field(default_factory=list)

    @property
    def kind(self) -> str:
        return self.found.kind if self.found else ("cuda" if self.device.startswith("cuda") else "cpu")

    @property
    def id(self) -> str:
        return self.found.id if self.found else self.device


def device(contact: Contact) -> Iterator[Finding]:
    """Which device, and how fast it multiplies in each dtype."""
    with LocalExecutor() as executor:
        contact.found = device = find(executor, contact.device)
        report = report_on(executor, device)
    contact.native = native_dtype(report.rates)
    contact.ends_at += 60 * (MINUTES[device.kind] - MINUTES["cpu"])
    capability = f", compute capability {device.capability}" if device.capability else ""
    yield Finding(True, f"{device.id} {device.name}", f"{device.total_bytes / 2**30:.1f} GiB{capability}")
    for name, rate in report.rates.items():
        how = "native" if rate.native else "emulated"
        speed = f"forward {rate.forward / 1e12:.3g}, backward {rate.backward / 1e12:.3g} TFLOP/s, {how}"
        yield Finding(True, f"probe of {name}", speed)


def doctor(contact: Contact) -> Iterator[Finding]:
    """`harness doctor` finds nothing that stops a sweep."""
    code, output = commands.harness(contact.ends_at, "doctor", "--device", contact.id)
    last = output.strip().splitlines()[-1] if output.strip() else "it says nothing"
    yield Finding(code == 0, "harness doctor", last if code == 0 else f"code {code}: {output.strip()[-600:]}")


def kernels(contact: Contact) -> Iterator[Finding]:
    """Losses and gradients of every kernel are those of the plain step."""
    precisions = " ".join(dict.fromkeys((contact.native, "fp32", "int4")))
    options = ["--device", contact.id, "--precisions", precisions]
    begun = 0
    for line in commands.lines(contact.ends_at, [sys.executable, "-m", "bench.kernel_check", *options]):
        if line.startswith("{"):
            begun += 1
            yield Finding(**json.loads(line))
    if not begun:
        raise RuntimeError("no kernel was compared")


def cells(contact: Contact) -> Iterator[Finding]:
    """One cell per precision by `harness bench`."""
    yield from _bench(contact, "cells", ["--precisions", " ".join(PRECISIONS)])


def predictions(contact: Contact) -> Iterator[Finding]:
    """What was predicted for the cells before they were measured."""
    for row in contact.cells:
        if not (row.ok and row.predicted_micro_s and row.predicted_peak_bytes and row.peak_bytes):
            continue
        # Seconds, unless they were measured beside others.
        measured_s = median(row.micro_s)
        factor = row.predicted_micro_s / measured_s
        held: bool | None = 1 / SECONDS_FACTOR <= factor <= SECONDS_FACTOR
        text = f"predicted {factor:.2f} times what was measured"
        if not held and measurement.CROWDED in row.notes:
            held, text = None, f"{text}; it was {measurement.CROWDED}"
        yield Finding(held, f"seconds of {row.cell.label}", text)
        # Memory.
        factor, apart = row.predicted_peak_bytes / row.peak_bytes, abs(row.predicted_peak_bytes - row.peak_bytes)
        within = 1 / BYTES_FACTOR <= factor <= BYTES_FACTOR or apart <= BYTES_APART
        text = f"predicted {factor:.2f} times what was measured, {apart / 2**30:.2f} GiB apart"
        yield Finding(within, f"memory of {row.cell.label}", text)
    if not any(row.ok for row in contact.cells):
        yield Finding(None, "predictions", "no cell was measured to compare with")


def gpus(contact: Contact) -> Iterator[Finding]:
    """A cell whose steps are shared by all cards of the machine."""
    count = 1 + len(contact.found.others) if contact.found else 1
    if contact.kind != "cuda" or count == 1:
        yield Finding(None, "--gpus", "there is one device here")
        return
    yield from _bench(contact, "gpus", ["--precisions", contact.native, "--gpus", str(count)])


def ttft(contact: Contact) -> Iterator[Finding]:
    """A short fine-tune of arc-tiny, with its answers."""
    folder = contact.results / "ttft"
    code, output = commands.harness(contact.ends_at, "ttft", *TTFT, "--device", contact.id, "--results", str(folder))
    rows = [row for path in folder.rglob(arm.ROWS.name) for row in store.read(path, arm.ROWS)[0]]
    for row in rows:
        losses = row.step_losses
        right = row.ok and bool(row.questions) and all(map(math.isfinite, losses))
        text = f"{row.questions} questions in {row.decode_s:.1f} s"
        if losses:
            text += f", {len(losses)} steps in {row.train_s:.1f} s, loss {losses[0]:.3f} to {losses[-1]:.3f}"
        yield Finding(right, f"arm {row.arm}", text if row.ok else f"{row.status}: {row.reason}")
    if code or len(rows) < 2:
        yield Finding(False, "harness ttft", f"code {code}, {len(rows)} arms: {output.strip()[-600:]}")


def answers(contact: Contact) -> Iterator[Finding]:
    """Answers with guessed tokens, beside those without."""
    options = ["--device", contact.id, "--precision", contact.native, "--minutes", "0.4", "--most", "0", "3", "16"]
    output = list(commands.lines(contact.ends_at, [sys.executable, "-m", "bench.drafts", *options]))
    found = [json.loads(line) for line in output if line.startswith("[{")]
    if not found:
        # The last line of a traceback is the one that says why.
        said = [line for line in output[:-1] if line.strip()]
        raise RuntimeError(f"no answers: {said[-1][:600] if said else output[-1]}")
    first, *others = found[0]
    for way in others:
        text = (
            f"{first['steps'] / way['steps']:.1f} times fewer steps, {first['seconds'] / way['seconds']:.1f} times as "
            f"fast, {way['differ']} of {way['texts']} texts differ"
        )
        # In 16 bits two tokens may be as likely to within rounding; a cache that is wrong changes most texts.
        yield Finding(way["differ"] <= DIFFERENT_SHARE * way["texts"], f"{way['guesses']} guessed tokens", text)


STEPS: dict[str, Callable[[Contact], Iterator[Finding]]] = {
    step.__name__: step for step in (device, doctor, kernels, cells, predictions, gpus, ttft, answers)
}


def run(contact: Contact, steps: dict[str, Callable[[Contact], Iterator[Finding]]], report: Report) -> None:
    """Runs the steps into `report`; whatever one raises is a finding. Ends early at Ctrl-C, which is noted."""
    for name, step in steps.items():
        began = time.monotonic()
        print(f"{name}: {(step.__doc__ or '').strip()}", file=sys.stderr, flush=True)
        try:
            if began > contact.ends_at:
                raise commands.TimeUp
            for finding in step(contact):
                report.add(name, finding)
        except KeyboardInterrupt:
            report.add(
                name, Finding(False, name, "stopped by Ctrl-C; it and the steps after it were not run to the end")
            )
            return
        except commands.TimeUp:
            report.add(name, Finding(False, name, "not run to its end: the time was up"))
        except UserError as problem:
            report.add(name, Finding(False, name, str(problem)))
        except Exception as problem:  # a step must not stop the others
            report.add(name, Finding(False, name, f"{type(problem).__name__}: {first_line(problem)}"))
        report.seconds[name] = time.monotonic() - began


def _bench(contact: Contact, name: str, options: list[str]) -> Iterator[Finding]:
    """The rows of one `harness bench`; those of "cells" are kept for the predictions."""
    folder = contact.results / name
    arguments = [*CELLS[contact.kind], *ALWAYS, *options, "--device", contact.id, "--results", str(folder)]
    code, output, stopped = 0, "", None
    try:
        code, output = commands.harness(contact.ends_at, "bench", *arguments)
    except (KeyboardInterrupt, commands.TimeUp) as problem:
        stopped = problem
    # What was measured before that counts.
    rows = [row for path in folder.rglob(store.NAME) for row in store.read(path)[0]]
    if name == "cells":
        contact.cells = rows
    for row in rows:
        finite = all(map(math.isfinite, row.losses))
        text = f"{row.status}: {row.reason}"
        if row.ok:
            gib = (row.peak_bytes or 0) / 2**30
            text = f"{1000 * median(row.micro_s):.3g} ms per micro-step, {gib:.2f} GiB, {row.kernels}"
            text += "" if finite else f"; losses {row.losses} are not finite"
        yield Finding(row.ok and finite, f"{row.cell.model.name} {row.cell.label}", text)
    if stopped:
        raise stopped
    if code or not rows:
        yield Finding(False, "harness bench", f"code {code}, {len(rows)} rows: {output.strip()[-600:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    parser.add_argument("--results", type=Path, default=Path("results/first-contact"), help="emptied before")
    parser.add_argument("--only", default=" ".join(STEPS), help="steps by name; device comes first always")
    options = parser.parse_args()
    names = options.only.split()
    if unknown := [name for name in names if name not in STEPS]:
        parser.error(f"no step is called {unknown[0]}; there are {', '.join(STEPS)}")
    results = options.results.resolve()
    for part in ("cells", "gpus", "ttft"):
        shutil.rmtree(results / part, ignore_errors=True)
    results.mkdir(parents=True, exist_ok=True)
    contact = Contact(options.device, results, time.monotonic() + 60 * MINUTES["cpu"])
    report = Report()
    run(contact, {name: step for name, step in STEPS.items() if name in ("device", *names)}, report)
    text = report.text(contact.found.name if contact.found else contact.device)
    print(text)
    (results / "report.txt").write_text(text + "\n", encoding="utf-8")
    print(f"Written to {results / 'report.txt'}", file=sys.stderr)
    sys.exit(not report.held)


if __name__ == "__main__":
    main()
