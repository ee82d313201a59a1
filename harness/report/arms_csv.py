"""The arms as a CSV: one row per arm against the first of its table, then one per pair of candidates."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.analysis.candidates import candidates, interval
from harness.analysis.comparison import Comparison
from harness.analysis.ranking import rank_candidates
from harness.analysis.retraining import noise_for
from harness.files import write_output
from harness.records.arm import ArmResult
from harness.records.cell import Goal
from harness.records.measurement import Measurement
from harness.report.comparison import compared
from harness.report.format import safe_cell
from harness.report.ttft import by_comparison, trained_spec

# Stable, as those of summary.csv are. results/README.md describes them.
COLUMNS = (
    "model", "precision", "weights", "arm", "status", "reason", "set", "tasks", "context", "views", "scope", "steps",
    "sequences_per_step", "lora_targets", "learning_rate", "seed", "accuracy", "wilson_low", "wilson_high",
    "solved", "answer_loss", "grid_nll", "train_s", "decode_s_per_task", "against", "nats_low", "nats", "nats_high",
    "nats_p", "nats_holm", "nats_tasks", "gain_low", "gain", "gain_high", "solved_p", "solved_holm", "tasks_to_tell",
    "key",
)  # fmt: skip


def write_arms(rows: Sequence[Measurement], results: Sequence[ArmResult], goal: Goal, path: Path) -> None:
    """Replaces `path` whole or not at all; to six figures. Raises UserError where it cannot be written."""
    import pandas

    table = [_safe(row) for row in flat(rows, results, goal)]
    write_output(path, pandas.DataFrame(table, columns=list(COLUMNS)).to_csv(index=False, float_format="%.6g"))


def flat(rows: Sequence[Measurement], results: Sequence[ArmResult], goal: Goal) -> list[dict[str, Any]]:
    """One dict of COLUMNS per arm, failed ones too, and per pair of candidates; without what a row has not."""
    made = []
    for group in by_comparison(results):
        ok = [row for row in group if row.ok]
        comparisons = compared(ok, noise_for(results, trained_spec(ok))) if ok else []
        beside = {id(c.second): _compared(c, c.first.label) for c in comparisons}
        made += [_of(row) | beside.get(id(row), {}) for row in group]
    # Repeats with other seeds stand for themselves.
    shown = {row["key"] for row in made}
    made += [_of(row) for row in results if row.key not in shown]
    for pair in rank_candidates(candidates(rows, results, goal), goal).pairs:
        spec = pair.first.spec
        made.append(_of(pair.second) | _compared(pair, f"{spec.model.name} {spec.precision} {pair.first.label}"))
    return made


def _of(row: ArmResult) -> dict[str, Any]:
    spec = row.spec
    columns: dict[str, Any] = {
        "model": spec.model.name, "precision": spec.precision, "weights": spec.weights, "arm": row.label,
        "status": row.status, "reason": row.reason, "set": spec.dataset, "tasks": len(spec.tasks),
        "context": spec.context, "views": spec.views, "scope": spec.scope, "steps": row.steps,
        "sequences_per_step": spec.recipe.sequences_per_step, "lora_targets": spec.recipe.lora_targets,
        "learning_rate": spec.recipe.learning_rate, "seed": spec.seed, "key": row.key,
    }  # fmt: skip
    if row.ok:
        low, high = interval(row)
        columns |= {
            "accuracy": row.mean("attempts"), "wilson_low": low, "wilson_high": high, "solved": sum(row.solved),
            "answer_loss": row.token_loss, "grid_nll": row.grid_nll, "train_s": row.train_s,
            "decode_s_per_task": row.decode_s_per_task,
        }  # fmt: skip
    return columns


def _compared(c: Comparison, name: str) -> dict[str, Any]:
    low, middle, high = c.nats or (None, None, None)
    return {
        "against": name, "nats_low": low, "nats": middle, "nats_high": high, "nats_p": c.nats_p,
        "nats_holm": c.nats_holm, "nats_tasks": c.nats_tasks, "gain_low": c.gain[0], "gain": c.gain[1],
        "gain_high": c.gain[2], "solved_p": c.solved_p, "solved_holm": c.solved_holm,
        "tasks_to_tell": c.tasks_to_tell,
    }  # fmt: skip


def _safe(columns: dict[str, Any]) -> dict[str, Any]:
    return {name: safe_cell(value) if isinstance(value, str) else value for name, value in columns.items()}
