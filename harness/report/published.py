"""A record's arms beside published ones, marked and never ranked: models, tasks, doses and tokenizers differ."""

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.catalog.published import ARMS, ARMS_MODEL, CONDITIONS, RUNS
from harness.catalog.weights import label
from harness.digits import number
from harness.records.arm import SHARED, ArmResult
from harness.report.style import plain_table

_BASELINE, _AFTER = "baseline", "+ color swap"
MEASURED, PUBLISHED = "measured", "published"
Runs = dict[str, list[ArmResult]]


def show(results: Sequence[ArmResult], out: Console) -> None:
    """Prints the arms of `results` beside arc24's, accuracies before and after beside others', and all conditions."""
    runs = _runs([row for row in results if row.ok])
    out.print(
        Text("\nPublished beside measured, not ranked: models, tasks, doses and tokenizers differ.", style="bold")
    )
    out.print()
    out.print(_arms(runs))
    out.print()
    out.print(_before_and_after(runs))
    out.print()
    for line in _notes(runs):
        out.print(Text(f"- {line}"))


def _runs(results: Sequence[ArmResult]) -> dict[str, list[ArmResult]]:
    """The arms that were trained alike and asked alike, with the baseline that was asked so, by what a table calls
    them: "measured", or "measured 1" and so on. Of rows of one arm the newest counts."""

    def asked(row: ArmResult) -> tuple:
        spec = row.spec
        return (spec.model.name, spec.weights, spec.precision, spec.comparison_key, spec.context, spec.encoding,
                spec.too_long, spec.decode, spec.select, spec.seed)  # fmt: skip

    bases = {asked(row): row for row in results if row.arm == _BASELINE}
    groups: dict[tuple, dict[str, ArmResult]] = {}
    for row in results:
        if row.arm != _BASELINE:
            key = (asked(row), row.spec.recipe, row.spec.steps, row.spec.scope)
            base = {_BASELINE: bases[asked(row)]} if asked(row) in bases else {}
            groups.setdefault(key, base)[row.arm] = row
    # A baseline may have been measured alone.
    trained = {key[0] for key in groups}
    alone = [[row] for key, row in bases.items() if key not in trained]
    runs = [*(list(group.values()) for group in groups.values()), *alone]
    return {f"{MEASURED} {i}" if len(runs) > 1 else MEASURED: run for i, run in enumerate(runs, 1)}


def _arms(runs: Runs) -> Table:
    """A row per arm and source: loss, how far it is from the same source's baseline, and accuracy."""
    table = plain_table("<arm|<evidence|<model|val\nloss|to base-\nline %|acc.\n%")
    published = {arm.arm: arm for arm in ARMS}
    first = published[_BASELINE].loss
    measured = [row.arm for run in runs.values() for row in run]
    for name in dict.fromkeys([*published, *measured]):
        title = name
        if arm := published.get(name):
            loss = "-" if arm.loss is None else f"{arm.loss:g}"
            change = _change(arm.loss, first) if name != _BASELINE else "-"
            table.add_row(title, PUBLISHED, ARMS_MODEL, loss, arm.words or change, _percent(arm.accuracy))
            title = ""
        for called, run in runs.items():
            base = next((row.token_loss for row in run if row.arm == _BASELINE), None)
            for row in (row for row in run if row.arm == name):
                change = _change(row.token_loss, base) if name != _BASELINE else "-"
                solved = _percent(row.mean("attempts"))
                table.add_row(title, called, row.spec.model.name, number(row.token_loss), change, solved)
                title = ""
    return table


def _before_and_after(runs: Runs) -> Table:
    table = plain_table("<model|<evidence|tasks|before\n%|after\n%|<source")
    for known in RUNS:
        source = known.source.partition(",")[0]
        table.add_row(known.model, PUBLISHED, str(known.tasks), _percent(known.before), _percent(known.after), source)
    for called, run in runs.items():
        of = {row.arm: row for row in run}
        if _BASELINE in of and _AFTER in of:
            before, after = (_percent(of[name].mean("attempts")) for name in (_BASELINE, _AFTER))
            spec = of[_AFTER].spec
            table.add_row(spec.model.name, called, str(len(spec.tasks)), before, after, "this record")
    return table


def _notes(runs: Runs) -> list[str]:
    notes = [
        "val loss: nats per token of the answers, comparable only under one tokenizer and encoding; to baseline: how "
        f"much it is above or below the same source's baseline. after: {_AFTER}, or the source's own arm."
    ]
    notes += [f"{PUBLISHED}: {source}: {text}." for source, text in CONDITIONS.items()]
    for called, run in runs.items():
        notes.append(f"{called}: {_conditions(run)}.")
        if _BASELINE not in [row.arm for row in run]:
            notes.append(f"{called}: no baseline was measured, so there is nothing to compare with.")
    if not runs:
        notes.append("This record has no arm; harness ttft --results FOLDER measures them.")
    return notes


def _conditions(run: Sequence[ArmResult]) -> str:
    """What the arms of a run were measured under."""
    trained = next((row for row in run if row.steps), run[0])
    spec, recipe = trained.spec, trained.spec.recipe
    weights = f", weights {text}" if (text := label(spec.weights)) else ""
    scope = "one adapter for all tasks" if spec.scope == SHARED else "one adapter per task"
    steps = f"{trained.steps} steps of {recipe.sequences_per_step} sequences, learning rate {recipe.learning_rate:g}"
    lora = f"LoRA of rank {recipe.lora_r}, alpha {recipe.lora_alpha} on {recipe.lora_targets}"
    training = f"{steps}, {lora}; " if trained.steps else ""
    return (
        f"{spec.model.name} {spec.precision}{weights}, {len(spec.tasks)} tasks of {spec.dataset}, best of 2 attempts; "
        f"{scope}, {training}{spec.decode}, {spec.views} views, {spec.context} tokens"
    )


def _change(loss: float | None, base: float | None) -> str:
    if loss is None or not base or not math.isfinite(loss / base):
        return "-"
    return f"{100 * (loss / base - 1):+.1f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"
