"""The table of test-time fine-tuning's arms: loss, accuracy with its interval, cost, and p against the row above."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from harness.analysis.candidates import interval
from harness.analysis.learning_curve import accuracy_after, chance_of_best
from harness.analysis.retraining import NONE, Noise, first_seeds, noise_for
from harness.analysis.stats import mcnemar
from harness.analysis.weight_marks import weight_marks
from harness.digits import fixed, number
from harness.records.arm import SHARED, ArmResult, TuneSpec
from harness.records.cell import Goal
from harness.records.measurement import CROWDED, Measurement
from harness.report.comparison import best_line, compared, comparison_tables
from harness.report.style import plain_table

_COMPARED = (
    "diff.: nats per grid less the other's, on the same tasks (negative: better), paired bootstrap; p by flipping "
    "signs, of solved tasks by exact McNemar; Holm: p for the number of p in both tables; tasks to tell: how many "
    "would show such a difference of accuracy in 8 of 10 experiments."
)


def arms_table(
    rows: Sequence[ArmResult], out: Console, project_to: int | None = None, record: Sequence[ArmResult] = ()
) -> ArmResult | None:
    """Prints the arms in order, and with `project_to` their projections to so many steps; returns the best arm. What
    another seed changes comes from repeats in `record`, if any.

    An arm that failed has a sentence instead; None where all of them did. p is exact McNemar's on the tasks solved,
    against the row above.
    """
    # Failures are sentences above the table, which holds numbers only.
    for failed in (row for row in rows if not row.ok):
        out.print(Text(f"- {failed.label}: {failed.status}: {failed.reason}."))
    rows = [row for row in rows if row.ok]
    if not rows:
        return None
    shown = plain_table(
        "<arm|val\nloss|nats/\ngrid|acc.\n%|95 %|views\n%|cells\n%|shape\n%|steps|train\ns|s per\ntask|p"
    )
    # Each arm is compared with the row above, as arms are built upon each other.
    before = None
    for row in rows:
        low, high = interval(row)
        p = mcnemar(before.solved, row.solved) if before else None
        shown.add_row(
            row.label,
            number(row.token_loss),
            number(row.grid_nll),
            f"{100 * row.mean('attempts'):.1f}",
            f"{100 * low:.0f}-{100 * high:.0f}",
            *details(row),
            number(p, 2),
        )
        before = row
    out.print()
    out.print(shown)
    out.print()
    spec = trained_spec(rows)
    out.print(Text(definition(spec, record)))
    noise = noise_for(record or rows, spec)
    comparisons = compared(rows, noise)
    if comparisons:
        out.print(Text(f"\nAgainst {comparisons[0].first.label}:"))
        for table in comparison_tables(comparisons):
            out.print(table)
            out.print()
    for line in notes(rows, noise, project_to):
        out.print(Text(f"- {line}"))
    best, sentence = best_line(rows, comparisons, noise)
    out.print(Text(f"\n{sentence}", style="bold"))
    return best


def details(row: ArmResult) -> tuple[str, ...]:
    """Accuracy of views, right cells and shapes in percent, steps, seconds of training and of answering per task."""
    return (
        f"{100 * row.mean('views'):.1f}",
        f"{100 * row.mean('cells'):.0f}",
        f"{100 * row.mean('shape'):.0f}",
        str(row.steps),
        fixed(row.train_s),
        number(row.decode_s_per_task, 2),
    )


def name_of(spec: TuneSpec, record: Sequence[ArmResult] = ()) -> str:
    """Model and precision, and which weights where those of `record` would else be called the same."""
    return f"{spec.model.name} {spec.precision}{weight_marks((), record).get((spec.model.name, spec.weights), '')}"


def definition(spec: TuneSpec, record: Sequence[ArmResult] = ()) -> str:
    scope = "one adapter for all" if spec.scope == SHARED else "one adapter per task"
    return (
        f"{name_of(spec, record)} on {len(spec.tasks)} tasks of {spec.dataset}, {scope}, measured. "
        "acc.: the share of a task's test inputs answered within 2 attempts, "
        f"by {spec.select} over {spec.views} views, mean over tasks; tasks without an answer count as wrong. "
        "95 %: Wilson interval. val loss: nats per token of the "
        "true outputs. p: exact McNemar test against the row above, on the same tasks."
    )


def notes(rows: Sequence[ArmResult], noise: Noise, project_to: int | None) -> list[str]:
    """Notes on coverage, projections, the chance of being the best arm, and what the comparisons say."""
    notes = [_covered(rows[0])]
    notes += [f"{row.label}: {gaps}." for row in rows if (gaps := _gaps(row))]
    if all(row.steps for row in rows):
        notes.append(
            "No untuned model is among these arms, so what tuning gains cannot be said; add baseline to --arms."
        )
    if len(rows[0].scores) == 1:
        notes.append("One task tells no arms apart; ask for more --tasks.")
    if slowed := [row.label for row in rows if row.slowed]:
        notes.append(f"{', '.join(slowed)}: {CROWDED}.")
    if project_to:
        curves = [row for row in rows if row.curve_points and 0 < row.steps < project_to]
        notes += [f"{row.label}: {projected(row, project_to, noise)}" for row in curves]
    if len(rows) > 1:
        notes += [_COMPARED, noise.sentence]
        chances = chance_of_best({i: row.by_task for i, row in enumerate(rows)}, [noise.of(row) for row in rows])
        likely = sorted(chances, key=lambda i: -chances[i])[:3]
        shares = ", ".join(f"{rows[i].label} {100 * chances[i]:.0f} %" for i in likely)
        notes.append(f"Chance of being the best of these arms on such tasks (bootstrap): {shares}.")
    return notes


def by_comparison(results: Sequence[ArmResult]) -> list[list[ArmResult]]:
    """The results in groups that stand in one table: of one model, trained alike on the same tasks, the untuned one
    first. Repeats with other seeds are left out: they say how far a figure can be trusted (analysis/retraining)."""
    groups: dict[tuple, list[ArmResult]] = {}
    untuned: dict[tuple, list[ArmResult]] = {}
    for row in first_seeds(results):
        spec = row.spec
        asked = (
            spec.comparison_key, spec.model.name, spec.precision, spec.weights, spec.context, spec.encoding,
            spec.recipe.trim_vocab,
        )  # fmt: skip
        if row.arm == "baseline":
            untuned.setdefault(asked, []).append(row)
        else:
            groups.setdefault((asked, spec.scope, spec.steps, spec.recipe, spec.too_long), []).append(row)
    tables = [untuned.get(asked, []) + rows for (asked, *_), rows in groups.items()]
    tables += [rows for asked, rows in untuned.items() if all(asked != key[0] for key in groups)]
    # In the order in which their models came.
    place = {id(row): i for i, row in enumerate(results)}
    return sorted(tables, key=lambda rows: min(place[id(row)] for row in rows))


def trained_spec(rows: Sequence[ArmResult]) -> TuneSpec:
    """How the rows of a table were trained: an untuned one may come from a run of another kind."""
    return next((row.spec for row in rows if row.steps), rows[0].spec)


def steps_at_goal(spec: TuneSpec, goal: Goal, rows: Sequence[Measurement]) -> int:
    """Steps of `spec` that give its tasks as many sequences each as the goal's steps, those of the record's cells
    (`rows`), give all test tasks."""
    recipe = rows[0].cell.recipe if rows else spec.recipe
    dose = goal.steps * recipe.sequences_per_step / goal.test_tasks
    tasks = len(spec.tasks) if spec.scope == SHARED else 1
    return max(1, round(dose * tasks / spec.recipe.sequences_per_step))


def _covered(row: ArmResult) -> str:
    coverage = row.coverage
    examples = ""
    if coverage.examples:
        examples = f" and {coverage.examples_fit} of {coverage.examples} leave-one-out examples"
    return (
        f"coverage, by the model's tokenizer: {coverage.questions_fit} of {coverage.questions} test questions (with "
        f"room to answer){examples} fit {row.spec.context} tokens whole."
    )


def _gaps(row: ArmResult) -> str:
    """What did not fit or could not be trained, in words; empty where all did."""
    parts = [f"{row.skipped} of {row.questions + row.skipped} questions did not fit"] if row.skipped else []
    if row.too_long:
        parts.append(f"{row.too_long} of {row.used + row.too_long} training examples drawn did not fit")
    if row.untrained:
        parts.append(f"{row.untrained} tasks had no example to train on")
    return " and ".join(parts)


def projected(row: ArmResult, steps: int, noise: Noise = NONE) -> str:
    """The measured accuracy, and the one projected to `steps` or the reason why there is none."""
    estimate = accuracy_after(row.curve_points, steps, noise.accuracy)
    measured = f"measured {100 * row.mean('attempts'):.1f} % at {row.steps} steps"
    if estimate.refused:
        return f"{measured}; no projection to {steps}: {estimate.refused}."
    span = f"{100 * estimate.low:.0f} to {100 * estimate.high:.0f} %"
    return f"{measured}; projected to {steps} steps: {span} (95 %, x{estimate.reach:.1f} beyond the last checkpoint)."
