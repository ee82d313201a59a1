"""What a sweep does, built whole by the command line or by harness.bench; whom it tells, and what it leaves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.catalog.precisions import Precision
from harness.hardware.info import DeviceReport
from harness.records.cell import Cell, Goal, ModelSpec, Recipe
from harness.records.measurement import Measurement
from harness.shard import Shard


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """`contexts` (tokens), `sample_seconds` and `cap_seconds` are by kind of device, cpu and cuda.

    A cell samples for `sample_seconds` at most; one whose smallest run is predicted to take more than `cap_seconds` is
    not started. Without `results` the record's folder is named by the device.
    """

    models: Sequence[tuple[ModelSpec, str]]  # each with where its weights are
    precisions: Sequence[Precision]
    recipe: Recipe
    contexts: Mapping[str, Sequence[int]]
    sample_seconds: Mapping[str, float]
    cap_seconds: Mapping[str, float]
    goal: Goal
    device: str = "auto"
    results: Path | None = None
    targets_given: bool = False  # the user named the recipe's LoRA targets, for the fine-tunes of a bench too
    fresh: bool = False  # measure again what the record has
    retry: bool = False  # measure again what crashed, was killed or timed out
    autotune: bool = False  # search the micro-batch and recomputation that are fastest
    # On a card: as large a micro-batch as it has room for where the recipe's is 1, and less where memory runs out.
    fill_memory: bool = False
    arc_lengths: bool | None = None  # time whole steps over ARC's lengths too; None: on a card
    shard: Shard | None = None  # of the cells
    force: bool = False  # do not wait for others who use the CPU
    seed: int = 0


class SweepObserver(Protocol):
    """Receives a sweep's progress. `seconds` are expectations; `measured` says whether the row is new."""

    def note(self, text: str) -> None: ...
    def begin(self, device_name: str, cells: int) -> None: ...
    def cell(self, number: int, cell: Cell, seconds: float, seconds_after: float) -> None: ...
    def phase(self, event: dict[str, Any]) -> None: ...
    def row(self, row: Measurement, measured: bool) -> None: ...


@dataclass(frozen=True)
class SweepResult:
    folder: Path
    report: DeviceReport
    rows: list[Measurement]
