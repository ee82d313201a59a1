"""From what was typed to what is asked: every value checked before anything is started."""

import re
from dataclasses import replace
from math import isfinite
from pathlib import Path

from harness.arc.coverage import Lengths, lengths
from harness.arc.encode import ENCODINGS
from harness.arc.prompt import build
from harness.arc.sources import load as load_tasks
from harness.catalog import kernels as kernel_table
from harness.catalog import models as catalog
from harness.catalog import precisions as precision_table
from harness.catalog import recipes
from harness.catalog import weights as weights_of
from harness.catalog.kernels import AUTO
from harness.errors import UserError, unknown
from harness.measure.config import Asked
from harness.records.arm import ROWS, ArmResult
from harness.records.cell import OWN, REFERENCE, Goal, Measurement, ModelSpec, Recipe


def read(
    models: list[str] | None,
    contexts: str | None,
    precisions: str | None,
    budget_hours: float | None,
    steps: int | None,
    weights: str,
    device: str,
    results: Path | None,
    models_file: Path | None,
    sample_seconds: float | None,
    cap_seconds: float | None,
    fresh: bool,
    retry: bool,
    seed: int,
    recipe: str | None = None,
    gpus: int = 1,
    trim_vocab: bool = False,
    fit: bool = False,
    kernels: str = AUTO,
) -> tuple[Asked, catalog.Catalog, Goal]:
    """What `harness bench` was asked. Raises UserError for the first value that cannot be."""
    known = catalog.load(models_file)
    names = [name for text in models or [] for name in words(text)] or [known.defaults.model]
    specs = _distinct([known.find(name) for name in names])
    if len(specs) > 1 and weights not in ("auto", "hub", "random"):
        raise UserError(f"--weights {weights} is one model's folder, but {len(specs)} models are named")
    chosen = [precision_table.find(name) for name in words(precisions or "")]
    asked = Asked(
        models=[(catalog.trimmed(spec) if trim_vocab else spec, weights_of.resolve(spec, weights)) for spec in specs],
        precisions=chosen or [precision_table.find(name) for name in known.defaults.precisions],
        recipe=with_kernels(kernels, replace(shared_by(gpus, _recipe(recipe, known.recipe)), trim_vocab=trim_vocab)),
        contexts=[context_of(word) for word in words(contexts or "")] or None,
        device=device_of(device),
        results=results,
        sample_seconds=positive("--sample-seconds", sample_seconds),
        cap_seconds=positive("--cap-seconds", cap_seconds),
        fresh=fresh,
        retry=retry,
        seed=seed,
        fit=fit,
    )
    return asked, known, goal(budget_hours, steps, known)


def _recipe(name: str | None, known: Recipe) -> Recipe:
    """The named recipe, if it can be measured: arc24's split over two cards can only be predicted."""
    if name not in (None, OWN, REFERENCE):
        raise unknown("recipe", name, (OWN, REFERENCE))
    return recipes.named(name, known)


def with_kernels(text: str, recipe: Recipe) -> Recipe:
    """`recipe` with the kernels that `text` names. Raises UserError for what is none, or has none to choose."""
    chosen = kernel_table.asked(text)
    if chosen != AUTO and recipe.implementation == REFERENCE:
        raise UserError("--kernels chooses for this program's own step; leave it out, or --recipe reference")
    return replace(recipe, kernels=chosen)


def shared_by(gpus: int, recipe: Recipe) -> Recipe:
    """`recipe` with its steps divided among so many cards."""
    if gpus < 1:
        raise UserError(f"--gpus must be 1 or more, not {gpus}")
    if recipe.sequences_per_step % (gpus * recipe.micro_batch):
        each = f"{recipe.sequences_per_step} sequences in micro-batches of {recipe.micro_batch}"
        raise UserError(f"--gpus {gpus}: a step's {each} cannot be shared equally by {gpus} cards")
    return replace(recipe, processes=gpus)


def enough(device: str, gpus: int) -> None:
    """Raises UserError where there are not so many cards from `device` on."""
    from harness.hardware.device import choose

    choose(device_of(device), gpus=gpus)


def goal(budget_hours: float | None, steps: int | None, known: catalog.Catalog, test_tasks: int | None = None) -> Goal:
    return Goal(
        positive("--budget-hours", budget_hours) or known.defaults.budget_hours,
        int(positive("--steps", steps) or known.defaults.steps),
        int(positive("--test-tasks", test_tasks) or known.defaults.test_tasks),
    )


def record(
    results: Path | None,
    budget_hours: float | None,
    steps: int | None,
    models_file: Path | None,
    test_tasks: int | None = None,
) -> tuple[list[Measurement], list[ArmResult], Goal, Path, int]:
    """A folder's rows and accuracies, the goal to judge them by, the folder, and how many lines were no rows."""
    from harness.hardware.environment import latest_folder
    from harness.records import store

    aim = goal(budget_hours, steps, catalog.load(models_file), test_tasks)
    folder = results or latest_folder()
    path = folder / store.NAME
    try:
        rows, bad = store.read(path)
        found, worse = store.read(folder / ROWS.name, ROWS) if (folder / ROWS.name).exists() else ([], 0)
    except OSError as problem:
        raise UserError(f"{path}: cannot be read ({problem.strerror}); run `harness bench` first") from None
    return rows, found, aim, folder, bad + worse


def words(text: str) -> list[str]:
    """The names in "a b" or "a,b", each once."""
    return list(dict.fromkeys(text.replace(",", " ").split()))


def _distinct(specs: list[ModelSpec]) -> list[ModelSpec]:
    """Each model once. Raises UserError for two of one name, which no table could tell apart."""
    by_name: dict[str, ModelSpec] = {}
    for spec in specs:
        if by_name.setdefault(spec.name, spec) != spec:
            other = by_name[spec.name]
            raise UserError(f"{other.path or other.hub_id} and {spec.path or spec.hub_id} are both called {spec.name}")
    return list(by_name.values())


def context_of(word: str) -> int:
    if not word.isdigit() or not 2 <= int(word) <= 10_000_000:
        raise UserError(f"context {word!r} is no number of tokens; give 2 or more, as in --contexts '1024 4096'")
    return int(word)


def device_of(asked: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", asked):
        raise UserError(f"unknown device {asked!r}; use auto, cpu, cuda or cuda:N")
    return asked


def positive(option: str, value: float | None) -> float | None:
    if value is not None and not (isfinite(value) and value > 0):
        raise UserError(f"{option} must be above 0, not {value:g}")
    return value


def coverage(source: str, contexts: str, tokenizer: str | None, encoding: str) -> tuple[list[Lengths], list[int], str]:
    """Lengths of the set's sequences, the contexts, and how the lengths were found. Raises UserError."""
    if encoding not in ENCODINGS:
        raise unknown("encoding", encoding, ENCODINGS)
    wanted = [context_of(word) for word in words(contexts)]
    if not 1 <= len(wanted) <= 5:
        raise UserError(f"--contexts names {len(wanted)} contexts; give one to five")
    puzzles, _ = load_tasks(source)
    if tokenizer is None:
        return lengths(puzzles), wanted, f"{source}: estimated, at one token a cell and newline and 388 for the words"
    from harness.train.compat import Unsupported
    from harness.train.model import load_tokenizer

    try:
        loaded = load_tokenizer(tokenizer)
    except Unsupported as problem:
        raise UserError(str(problem)) from None
    counted = lengths(puzzles, lambda pairs, asked, output: len(build(loaded, pairs, asked, output, encoding).ids))
    return counted, wanted, f"{source}: counted by the tokenizer at {tokenizer}, grids as {encoding}"
