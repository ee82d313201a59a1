"""The settings of a run as a YAML file: what `pick` chose, for `solve` to run."""

from pathlib import Path
from typing import Any

import msgspec
import yaml

from harness import limits
from harness.analysis.ranking import Candidate
from harness.catalog.strict_yaml import Strict, parse_file
from harness.catalog.weights import BUNDLED, RANDOM
from harness.records.arm import TASK

_HEAD = "# Settings of a run, for: harness solve --recipe {name} --tasks FILE\n"


class RecipeFile(Strict, frozen=True):
    """Options of `solve` by their names; what is left out has the option's own default."""

    model: str
    weights: str | None = None
    precision: str | None = None
    context: limits.Prompt | None = None
    arm: str | None = None
    encoding: str | None = None
    decode: str | None = None
    select: str | None = None
    steps: limits.Steps | None = None
    views: limits.Views | None = None
    sequences_per_step: limits.Sequences | None = None
    learning_rate: limits.LearningRate | None = None
    lora_targets: str | None = None
    trim_vocab: bool = False

    def options(self) -> dict[str, Any]:
        """The options that the file gives."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value}


def read(path: Path) -> RecipeFile:
    """The file's settings. Raises UserError with file, line and key for any fault in it."""
    return parse_file(path, "--recipe").convert(RecipeFile)


def text_of(candidate: Candidate, name: str) -> str:
    """The `settings_of` a ranked candidate as the file `name`."""
    return _HEAD.format(name=name) + yaml.safe_dump(settings_of(candidate), sort_keys=False)


def settings_of(candidate: Candidate) -> dict[str, Any]:
    """Options of `solve`: the candidate's cell, and how its accuracy was measured, where that was.

    Without an accuracy nothing says how to train: learning rate, targets, sequences and steps are left to `solve`,
    which takes models.yaml's for this model and not those that the sweep was timed with. Steps of a fine-tune that all
    tasks shared are none per task, so they are left to `solve` too.
    """
    cell = candidate.row.cell
    settings: dict[str, Any] = {
        "model": cell.model.path or cell.model.name,
        "weights": None if cell.weights == RANDOM or cell.weights.startswith(BUNDLED) else cell.weights,
        "precision": cell.precision,
        "context": max(64, cell.context),
        "trim_vocab": cell.recipe.trim_vocab,
    }
    if result := candidate.result:
        spec = result.spec
        settings |= {
            "sequences_per_step": spec.recipe.sequences_per_step,
            "learning_rate": spec.recipe.learning_rate,
            "lora_targets": spec.recipe.lora_targets,
            "trim_vocab": spec.recipe.trim_vocab,
            "arm": result.arm if result.steps else None,
            "encoding": spec.encoding,
            "decode": spec.decode,
            "select": spec.select,
            "views": spec.views,
            "steps": spec.steps if spec.scope == TASK and result.steps else None,
        }
    return {name: value for name, value in settings.items() if value}
