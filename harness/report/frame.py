"""The rows of a record as one flat table, one dict per cell: the CSV's schema."""

from collections.abc import Sequence
from statistics import fmean, median
from typing import Any

from harness.analysis import projection, token_curve
from harness.analysis.candidates import Candidate, candidates, judged_runs
from harness.analysis.comparison import against
from harness.analysis.run_hours import RunHours
from harness.analysis.verdict import verdict
from harness.records.arm import ArmResult
from harness.records.cell import Goal
from harness.records.measurement import Measurement
from harness.report.columns import COLUMNS
from harness.report.format import GIB, safe_cell


def summary_frame(
    rows: Sequence[Measurement],
    goal: Goal,
    results: Sequence[ArmResult] = (),
) -> list[dict[str, Any]]:
    """One dict of COLUMNS per row; None where a row has no such value. Texts are made safe for a spreadsheet."""
    fitted = token_curve.fit_curves(rows)
    # An accuracy stands in the row of its own context alone.
    by_key = {c.row.key: c for c in candidates(rows, results, goal) if c.at_own_context}
    runs = judged_runs(rows, list(by_key.values()), goal)
    dicts = [
        _flat(row, fitted[token_curve.curve_key(row)], runs.get(row.key), goal) | _accuracy(by_key.get(row.key))
        for row in rows
    ]
    return [{k: safe_cell(v) if isinstance(v, str) else v for k, v in columns.items()} for columns in dicts]


def _accuracy(candidate: Candidate | None) -> dict[str, Any]:
    """The columns of a cell whose model was fine-tuned; none for others."""
    if candidate is None or candidate.result is None:
        return {}
    # The measured accuracy and its costs, then what is projected.
    result, estimate, answers = candidate.result, candidate.estimate, candidate.run.answers
    low, corrected, high = candidate.accuracy
    columns = {
        "accuracy_arm": result.label,
        "accuracy": result.mean("attempts"),
        "accuracy_corrected": corrected,
        "accuracy_low": low,
        "accuracy_high": high,
        "accuracy_steps": result.steps,
        "accuracy_baseline": candidate.baseline.mean("attempts") if candidate.baseline else None,
        "accuracy_tasks": len(result.scores),
        "accuracy_set": result.spec.dataset,
        "accuracy_context": result.spec.context,
        "accuracy_views": result.spec.views,
        "answer_loss": result.token_loss,
        "grid_nll": result.grid_nll,
        "chance_of_best": candidate.chance,
        "decode_s_per_task": result.decode_s_per_task,
        # Of the run that the verdict is of.
        "inference_hours": answers.mid if answers else None,
        "total_hours_high": candidate.run.high,
    }
    if candidate.baseline:
        # For the number of arms that it was chosen from.
        made = against(candidate.baseline, candidate.chosen_from, candidate.noise)
        own = next(c for c in made if c.second is result)
        columns |= {
            "nats_diff_holm": own.nats_holm,
            "solved_diff_holm": own.solved_holm,
            "tasks_to_tell": own.tasks_to_tell,
            **dict(zip(("nats_diff_low", "nats_diff", "nats_diff_high"), own.nats or (None,) * 3, strict=True)),
        }
    if estimate:
        columns |= {
            "projected_accuracy_low": estimate.low,
            "projected_accuracy": estimate.mid,
            "projected_accuracy_high": estimate.high,
            "projected_steps": candidate.bought.run.steps,
            "projected_reach": estimate.reach,
            "projection_refused": estimate.refused,
        }
    return columns


def _flat(row: Measurement, fitted: token_curve.TokenCurve | None, run: RunHours | None, goal: Goal) -> dict[str, Any]:
    """The columns of a row without those of accuracy; `fitted` is the curve through it and its neighbours, `run` what
    it is judged by."""
    cell = row.cell
    columns: dict[str, Any] = dict.fromkeys(COLUMNS)
    # What was to be measured, and the verdict: every row has this.
    params_m = row.params / 1e6 if row.params else cell.model.params_m
    columns |= {
        "model": cell.model.name,
        "hub_id": cell.model.hub_id,
        "params_m": round(params_m, 1) if params_m else None,
        "max_context": cell.model.max_context,
        "precision": cell.precision,
        "compute_dtype": cell.compute_dtype,
        "native": row.rate.native if row.rate else None,
        "context": cell.context,
        "weights": cell.weights,
        "device": cell.device_name,
        "status": row.status,
        "verdict": verdict(row, run, goal.budget_hours),
        "reason": row.reason or (cell.why if cell.why != "asked" else ""),
        "estimate_s": row.estimate_s,
        "sequences_per_step": cell.recipe.sequences_per_step,
        "implementation": cell.recipe.implementation,
        "kernels": row.kernels,
        "adapted": row.adapted,
        "others_cpu": row.others_cpu,
        "notes": "; ".join(row.notes),
        "predicted_micro_step_s": row.predicted_micro_s,
        "predicted_peak_gib": _gib(row.predicted_peak_bytes),
        "steps": goal.steps,
        "budget_hours": goal.budget_hours,
        "seed": row.seed,
        "started": row.started,
        "commit": row.commit,
        "key": row.key,
        **{name: row.versions.get(name) for name in ("torch", "transformers", "peft", "bitsandbytes")},
    }
    if run:
        span = run.span
        columns |= {
            "run_scope": run.run.scope,
            "run_dose": run.run.dose,
            "run_hours_low": span.low,
            "run_hours_mid": span.mid,
            "run_hours_high": span.high,
            "answer_evidence": run.evidence,
        }
    # What a card said before and after sampling.
    if row.card:
        before, after = row.card[0], row.card[-1]
        columns |= {
            "soak_s": row.soak_s,
            "sm_mhz_before": before.sm_mhz,
            "sm_mhz_after": after.sm_mhz,
            "celsius_after": after.celsius,
            "watts_after": after.watts,
            "throttle": " + ".join(dict.fromkeys(name for state in row.card for name in state.throttle)),
        }
    # A row that failed late still has memory.
    if row.memory:
        columns["peak_gib"] = _gib(row.peak_bytes)
        columns["margin_gib"] = _gib(row.margin_bytes)
        for phase in ("after_load", "first_step", "steady"):
            columns[f"{phase}_gib"] = _gib(max(row.memory.get(phase, {}).values(), default=None))
    # Speed, and hours at the full context.
    if row.ok:
        projected = projection.project(row, goal.steps)
        columns |= {
            "steps_per_minute": 60 / projected.step_s,
            "ten_steps_min": projected.step_s / 6,
            "hours_low": projected.hours_low,
            "hours_mid": projected.hours_mid,
            "hours_high": projected.hours_high,
            "load_s": row.load_s,
            "warmup_s": sum(row.warmup_micro_s) + sum(row.warmup_optimizer_s),
            "micro_step_median_s": median(row.micro_s),
            "optimizer_mean_s": fmean(row.optimizer_s),
            "micro_steps": len(row.micro_s),
            "half_width": projection.relative_half_width(row),
            "tokens_per_s": projection.tokens_per_second(row),
            "tflops": (projection.achieved_flops(row) or 0) / 1e12 or None,
            "share_of_peak": projection.share_of_peak(row),
        }
        if row.arc_step_s:
            columns |= {
                "arc_step_mean_s": fmean(row.arc_step_s),
                "arc_steps": len(row.arc_step_s),
                "arc_tokens_per_step": fmean(row.arc_step_tokens) if row.arc_step_tokens else None,
            }
        # Hours over ARC's own lengths, those over the context dropped.
        if fitted and (arc := token_curve.arc_hours(fitted, row, cell.context, goal.steps)):
            columns |= {
                "arc_coverage": arc.coverage,
                "arc_hours_low": arc.hours_low,
                "arc_hours_mid": arc.hours_mid,
                "arc_hours_high": arc.hours_high,
            }
        else:
            columns["arc_coverage"] = 0.0
    return columns


def _gib(count: int | None) -> float | None:
    return None if count is None else count / GIB
