"""Parses and checks the command line's values, before anything is started; what several verbs share."""

import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import typer

from harness import limits
from harness import shard as shards
from harness.catalog import folder_name
from harness.catalog.model_folder import WindowUnknown
from harness.catalog.models import Catalog, Seconds
from harness.errors import UserError
from harness.files import user_path
from harness.records import arm, solving, store
from harness.records.arm import ArmResult
from harness.records.cell import Goal, ModelSpec
from harness.records.measurement import Measurement
from harness.records.store import LeftOut
from harness.shard import Shard
from harness.text import quoted, say_once
from harness.workers import cluster
from harness.workers.cluster import Fleet

DEVICE_KINDS = ("cuda", "cpu")
Words = str | int | Iterable[str | int] | None


@dataclass(frozen=True)
class RecordRows:
    """What a results folder holds: measurements, accuracies, and what is left out of both."""

    folder: Path
    rows: list[Measurement]
    results: list[ArmResult]
    left_out: LeftOut


def shard_of(text: str | None, pieces: int, what: str) -> Shard | None:
    """The share of `pieces` that was asked for, or that a scheduler's variables name. Raises UserError, and ends the
    program well where nothing falls to this share: a scheduler may have more jobs than there are pieces."""
    chosen = shards.parse(text, os.environ)
    if chosen:
        own = len(chosen.of(range(pieces)))
        print(f"{chosen.sentence}: {own} of {pieces} {what}", file=sys.stderr)
        if not own:
            raise typer.Exit(0)
    return chosen


def ray_words(words: list[str]) -> list[str]:
    """`words` with the address that `--ray` has where none follows it: typer knows no option whose value may be left
    out."""
    out = []
    for word, following in zip(words, [*words[1:], ""], strict=True):
        out.append(word)
        # A host without its port is taken for one too, so that it is said what lacks.
        address = r"auto|local|localhost|[^-/][^/]*:[0-9]*|[0-9]+(\.[0-9]+){3}|[a-z]+://.*"
        if word == "--ray" and not re.fullmatch(address, following):
            out.append(cluster.LOCAL)
    return out


def fleet_of(ray: str | None, on: str | None, device: str, gpus: int = 1) -> Fleet | None:
    """The cluster that the user names and what to use of it; None for this machine alone. Raises UserError."""
    types = re.split(r"[ ,]+", on.strip(" ,")) if on and on.strip(" ,") else []
    if ray is None:
        if types:
            raise UserError("--on chooses cards of a Ray cluster; it goes with --ray")
        return None
    if ":" in device:
        raise UserError(f"--device {device} names a card of this machine; with --ray it is Ray that gives out cards")
    if gpus > 1:
        raise UserError("--gpus shares a step among cards of one machine; it does not go with --ray")
    return cluster.reach(ray, types, device)


def record(results: Path | None, with_cells: bool = True) -> RecordRows:
    """The record in the folder `results`, by default the newest one. Raises UserError where there is none; without
    `with_cells` what ttft or solve left alone is one too."""
    folder = results or store.latest_folder()
    # Accuracies are optional; measurements are what makes a folder a record.
    path, accuracy = folder / store.NAME, folder / arm.ROWS.name
    others = (accuracy, folder / solving.ROWS.name)
    alone = not with_cells and not path.exists() and any(other.exists() for other in others)
    try:
        rows, left_out = ([], store.NOTHING) if alone else store.read(path)
        arms, more = store.read(accuracy, arm.ROWS) if accuracy.exists() else ([], store.NOTHING)
    except OSError as problem:
        where = problem.filename or path
        raise UserError(f"{where}: cannot be read ({problem.strerror}); run `harness bench` first") from None
    return RecordRows(folder, rows, arms, left_out + more)


def trackers_of(text: str | None) -> list[str]:
    """The trackers that the user names. Raises UserError for one that is unknown or not installed."""
    names = words(text)
    if names:
        from harness.report import trackers

        trackers.check(names)
    return names


def record_at(path: Path) -> RecordRows:
    """The record in the folder `path`, of measurements or accuracies or both, or in one file of measurements. Raises
    UserError where there is none."""
    if not path.is_file():
        return record(path, with_cells=False)
    try:
        rows, left_out = store.read(path)
    except OSError as problem:
        raise UserError(f"{path}: cannot be read ({problem.strerror}); name a results folder") from None
    return RecordRows(path, rows, [], left_out)


def goal(
    catalog: Catalog, budget_hours: float | None = None, steps: int | None = None, test_tasks: int | None = None
) -> Goal:
    """The goal: the values given, models.yaml's for the rest. Raises UserError for a value out of range."""
    defaults = catalog.defaults
    tasks = limits.within("--test-tasks", test_tasks, limits.Tasks)
    return Goal(
        limits.within("--budget-hours", budget_hours, limits.Hours) or defaults.budget_hours,
        limits.within("--steps", steps, limits.Steps) or defaults.steps,
        tasks or defaults.test_tasks,
    )


def words(text: Words) -> list[str]:
    """The names in "a b", "a,b" or ["a", "b"], each once."""
    # Python callers give lists and numbers, the command line one text.
    parts = [str(text)] if isinstance(text, str | int) else map(str, text or ())
    return list(dict.fromkeys(word for part in parts for word in part.replace(",", " ").split()))


def model_words(names: Words) -> list[str]:
    """The names in `names`, as `words` has them; a path that exists, which may have spaces and commas, is one name."""
    parts = [str(names)] if isinstance(names, str | int) else list(map(str, names or ()))
    found = [[part] if part.strip() and user_path(part).exists() else words(part) for part in parts]
    return list(dict.fromkeys(name for some in found for name in some))


def context_of(word: str) -> int:
    # Not isdigit: "²" is a digit of Unicode's.
    if not re.fullmatch(r"[0-9]{1,8}", word) or not 2 <= int(word) <= limits.MOST_TOKENS:
        given = quoted(word)
        raise UserError(
            f"context {given} is no number of tokens; give 2 to {limits.MOST_TOKENS}, as in --contexts '1024 4096'"
        )
    return int(word)


def device_of(word: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", word):
        raise UserError(f"unknown device {quoted(word)}; use auto, cpu, cuda or cuda:N")
    return word


def models_of(names: Words, catalog: Catalog, window: int | None = None) -> list[ModelSpec]:
    """Each model once, by default the catalogue's; no two have one name, and stderr says which got another. `window` is
    that of `model_of`."""
    specs: list[ModelSpec] = []
    for name in model_words(names) or [catalog.defaults.model]:
        if (spec := model_of(name, catalog, window)) not in specs:
            specs.append(spec)
    # A folder may bear the name of another one, or of a model of models.yaml, which keeps its own.
    listed = [spec for spec in specs if not spec.path and spec.name in catalog.models]
    named = folder_name.told_apart(specs, listed)
    for before, after in zip(specs, named, strict=True):
        if before.name != after.name:
            say_once(f"{before.path or before.hub_id} is called {after.name}, for another one is {before.name} too")
    return named


def model_of(name: str, catalog: Catalog, window: int | None = None) -> ModelSpec:
    """The model called `name`, with `window` tokens as its longest context if that is given.

    What its config.json leaves to transformers' defaults is asked of another process, for this one imports neither
    torch nor transformers. stderr says where a window does not come from the config. Raises UserError.
    """
    limits.within("--window", window, limits.Context)
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
        say_once(f"{spec.name}: takes {spec.max_context} tokens by {source}; its config says {in_config}")
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


def by_device_kind(option: str, value: float | None, defaults: Seconds) -> dict[str, float]:
    """`value` for every kind of device, or the defaults. Raises UserError for a value out of range."""
    return {kind: limits.within(option, value, limits.Seconds) or defaults[kind] for kind in DEVICE_KINDS}
