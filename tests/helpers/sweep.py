"""A sweep of one tiny model whose worker is helpers/worker.py, and an observer that keeps what it is told."""

import json
import sys
from pathlib import Path

from helpers.records import TINY

from harness.catalog import precisions
from harness.measure import sweep
from harness.measure.config import SweepConfig
from harness.records.cell import Goal, ModelSpec, Recipe
from harness.workers.local import LocalExecutor

WORKER = str(Path(__file__).with_name("worker.py"))
NATIVE = {"forward": 1e12, "backward": 1e12, "native": True}
EMULATED = {"forward": 1e9, "backward": 1e8, "native": False}
WORLD = {
    "device": {
        "id": "cpu",
        "name": "A [red]CPU",
        "total_bytes": 8 << 30,
        "uuid": "cpu",
        "capability": None,
        "others": [],
    },
    "rates": {"fp32": NATIVE, "fp16": EMULATED, "bf16": {**NATIVE, "forward": 4e12}},
}


CARD = {
    **WORLD["device"],
    "id": "cuda:0",
    "name": "Tesla T4",
    "total_bytes": 15 << 30,
    "uuid": "T4",
    "capability": "7.5",
}


class Watch:
    def __init__(self):
        self.notes, self.rows, self.cells = [], [], []

    def note(self, text):
        self.notes.append(text)

    def begin(self, device_name, cells):
        self.expected = cells

    def cell(self, number, cell, seconds, seconds_after):
        self.cells.append((number, cell.precision, cell.context, seconds, seconds_after))

    def phase(self, event):
        pass

    def row(self, row, measured):
        self.rows.append((f"{row.cell.precision} {row.cell.context}", row.status, measured))


class Bench:
    """A folder with a world in it; `run` sweeps one tiny model there."""

    def __init__(self, folder):
        self.folder, self.results, self.file = folder, folder / "results", folder / "world.json"
        self.world(WORLD)

    def world(self, world, **changes):
        self.file.write_text(json.dumps(world | changes))

    @property
    def command(self):
        """The stand-in, in this folder's world."""
        return sys.executable, WORKER, str(self.file)

    def config(self, names=("bf16",), contexts=(256, 512), windows=(4096,), **more):
        spec = more.pop("spec", {})
        models = [(ModelSpec(f"tiny{i}" if i else "tiny", TINY, w, **spec), "random") for i, w in enumerate(windows)]
        more = {"force": True} | more  # whatever else runs on the machine of the tests
        seconds = {"cap": 60, "sample": 5} | {name: more.pop(f"{name}_seconds") for name in ("cap", "sample")
                                              if f"{name}_seconds" in more}  # fmt: skip
        return SweepConfig(
            models=models,
            precisions=[precisions.requested(name) for name in names],
            recipe=more.pop("recipe", Recipe()),
            contexts=dict.fromkeys(("cpu", "cuda"), contexts),
            sample_seconds=dict.fromkeys(("cpu", "cuda"), seconds["sample"]),
            cap_seconds=dict.fromkeys(("cpu", "cuda"), seconds["cap"]),
            goal=Goal(12, 1000, 400),
            results=more.pop("results", self.results),
            **more,
        )

    def run(self, *choice, watch=None, **more):
        watch = watch or Watch()
        return sweep.run(self.config(*choice, **more), watch, LocalExecutor(self.command)), watch

    def jobs(self):
        log = self.file.with_suffix(".log")
        return log.read_text().splitlines() if log.exists() else []

    def seconds(self):
        """The seconds that every cell was given, in order."""
        return [json.loads(line) for line in self.file.with_suffix(".seconds").read_text().splitlines()]

    def asked(self):
        """The jobs that were asked for before any trace."""
        log = self.file.with_suffix(".asked")
        jobs = [line.rpartition(":")[2] for line in log.read_text().splitlines()]
        return [job for job in jobs if job.endswith("_device")]

    def will_measure(self, **fields):
        """Every cell is measured with these fields of its row."""
        self.world(WORLD, measured=fields)

    def will(self, seconds=0, **ends):
        self.world(WORLD, ends=ends, seconds=seconds)
