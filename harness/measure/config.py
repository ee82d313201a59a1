"""What a sweep does: built whole by the command line or by harness.bench."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.catalog.precisions import Precision
from harness.records.cell import Goal, ModelSpec, Recipe


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
    fresh: bool = False  # measure again what the record has
    retry: bool = False  # measure again what crashed, was killed or timed out
    autotune: bool = False  # search the micro-batch and recomputation that are fastest
    arc_lengths: bool | None = None  # time whole steps over ARC's lengths too; None: on a card
    force: bool = False  # do not wait for others who use the CPU
    seed: int = 0
