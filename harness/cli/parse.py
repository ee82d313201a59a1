"""Parses and checks the command line's values, before anything is started; what several verbs share."""

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from harness.catalog.models import Catalog, Seconds, WindowUnknown
from harness.errors import UserError, positive
from harness.records import arm, store
from harness.records.arm import ArmResult
from harness.records.cell import Goal, ModelSpec
from harness.records.measurement import Measurement

DEVICE_KINDS = ("cuda", "cpu")
Words = str | int | Iterable[str | int] | None


@dataclass(frozen=True)
class RecordRows:
    """What a results folder holds: measurements, accuracies, and the number of corrupt lines."""

    folder: Path
    rows: list[Measurement]
    results: list[ArmResult]
    corrupt: int = 0


def record(results: Path | None) -> RecordRows:
    """The record in the folder `results`, by default the newest one. Raises UserError where there is none."""
    folder = results or store.latest_folder()
    # Accuracies are optional; measurements are what makes a folder a record.
    path, accuracy = folder / store.NAME, folder / arm.ROWS.name
    try:
        rows, corrupt = store.read(path)
        arms, more = store.read(accuracy, arm.ROWS) if accuracy.exists() else ([], 0)
    except OSError as problem:
        raise UserError(f"{path}: cannot be read ({problem.strerror}); run `harness bench` first") from None
    return RecordRows(folder, rows, arms, corrupt + more)


def goal(
    catalog: Catalog, budget_hours: float | None = None, steps: int | None = None, test_tasks: int | None = None
) -> Goal:
    """The goal: the values given, models.yaml's for the rest. Raises UserError for a value that is not above 0."""
    return Goal(
        positive("--budget-hours", budget_hours) or catalog.defaults.budget_hours,
        int(positive("--steps", steps) or catalog.defaults.steps),
        int(positive("--test-tasks", test_tasks) or catalog.defaults.test_tasks),
    )


def words(text: Words) -> list[str]:
    """The names in "a b", "a,b" or ["a", "b"], each once."""
    # Python callers give lists and numbers, the command line one text.
    parts = [str(text)] if isinstance(text, str | int) else map(str, text or ())
    return list(dict.fromkeys(word for part in parts for word in part.replace(",", " ").split()))


def context_of(word: str) -> int:
    if not word.isdigit() or not 2 <= int(word) <= 10_000_000:
        raise UserError(f"context {word!r} is no number of tokens; give 2 or more, as in --contexts '1024 4096'")
    return int(word)


def device_of(word: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", word):
        raise UserError(f"unknown device {word!r}; use auto, cpu, cuda or cuda:N")
    return word


def models_of(names: Words, catalog: Catalog, window: int | None = None) -> list[ModelSpec]:
    """Each model once, by default the catalogue's. Raises UserError for two of one name, which no table could tell
    apart. `window` is that of `model_of`."""
    by_name: dict[str, ModelSpec] = {}
    for name in words(names) or [catalog.defaults.model]:
        spec = model_of(name, catalog, window)
        # A folder may bear the name of a model of models.yaml.
        if by_name.setdefault(spec.name, spec) != spec:
            other = by_name[spec.name]
            raise UserError(f"{other.path or other.hub_id} and {spec.path or spec.hub_id} are both called {spec.name}")
    return list(by_name.values())


def model_of(name: str, catalog: Catalog, window: int | None = None) -> ModelSpec:
    """The model called `name`, with `window` tokens as its longest context if that is given.

    What its config.json leaves to transformers' defaults is asked of another process, for this one imports neither
    torch nor transformers. stderr says where a window does not come from the config. Raises UserError.
    """
    if window is not None and window < 1:
        raise UserError(f"--window must be 1 or more, not {window}")
    in_config, source = "nothing", "--window"
    try:
        spec = catalog.find(name)
        in_config = str(spec.max_context)
    except WindowUnknown as unknown_window:
        tokens = window or _by_default(unknown_window.path, unknown_window.path.read_bytes())
        if not tokens:
            raise
        source = source if window else "transformers' default"
        spec = catalog.find(name, tokens)
    spec = replace(spec, max_context=window or spec.max_context)
    if in_config != str(spec.max_context):
        _say_once(f"{spec.name}: takes {spec.max_context} tokens by {source}; its config says {in_config}")
    return spec


@cache
def _by_default(path: Path, content: bytes) -> int | None:
    """The window that transformers has for the config.json at `path`; asked once per `content`."""
    from harness.workers.local import AskFailed, LocalExecutor

    with LocalExecutor() as executor:
        try:
            return executor.ask("harness.train.random_init:window_of", str(path))
        except AskFailed:
            return None


@cache
def _say_once(text: str) -> None:
    # `plan` parses its models twice.
    print(text, file=sys.stderr)


def by_device_kind(option: str, value: float | None, defaults: Seconds) -> dict[str, float]:
    """`value` for every kind of device, or the defaults. Raises UserError for what is not above 0."""
    return {kind: positive(option, value) or defaults[kind] for kind in DEVICE_KINDS}
