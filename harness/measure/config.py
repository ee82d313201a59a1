"""What a sweep is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir

from harness.catalog.precisions import Precision
from harness.records.cell import ModelSpec, Recipe


@dataclass(frozen=True)
class SweepConfig:
    """What the user asked for; None where the defaults of models.yaml stand, by kind of device."""

    models: Sequence[tuple[ModelSpec, str]]  # each with where its weights are
    precisions: Sequence[Precision]
    recipe: Recipe
    contexts: Sequence[int] | None = None
    device: str = "auto"
    results: Path | None = None
    sample_seconds: float | None = None
    cap_seconds: float | None = None
    fresh: bool = False
    retry: bool = False
    fit: bool = False  # search the micro-batch and checkpointing that are fastest
    seed: int = 0
    locks: Path = Path(gettempdir())
