"""Seconds of a sequence against its tokens, fitted over the contexts that were measured for one model and precision."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean

import numpy as np

from harness.analysis.drift import drift
from harness.analysis.projection import fixed_seconds, relative_half_width, sampling_half_width
from harness.arc.lengths import PUBLISHED
from harness.catalog.precisions import FUSED_4BIT_ROWS, NF4, PRECISIONS
from harness.records.measurement import FlopCount, Measurement


@dataclass(frozen=True)
class TokenCurve:
    """seconds(n) = fixed_s / batch + linear_s x linear FLOPs of n tokens + quadratic_s x attention's FLOPs of n tokens,
    of one sequence in a micro-step of `batch`.

    `error` is the largest relative misfit at a measured context; `longest` the longest of those.
    """

    fixed_s: float
    linear_s: float
    quadratic_s: float
    work: FlopCount
    error: float
    longest: int
    contexts: int

    def seconds(self, tokens: float, squared: float | None = None, batch: int = 1) -> float:
        """Seconds of a sequence; of many the mean, if these are the means of their tokens and of the squares."""
        work, squared = self.work, tokens**2 if squared is None else squared
        return (
            self.fixed_s / batch
            + self.linear_s * (work.forward_linear + work.backward_linear) * tokens
            + self.quadratic_s * (work.forward_quadratic + work.backward_quadratic) * squared
        )


def curve_key(row: Measurement) -> tuple:
    """The key that all rows of one curve share."""
    cell, recipe = row.cell, row.cell.recipe
    # On a card longer contexts have smaller micro-batches by default.
    if cell.device.startswith("cuda"):
        recipe = replace(recipe, micro_batch=1)
    return cell.model.name, cell.precision, cell.compute_dtype, cell.weights, cell.device_name, recipe


def by_curve(rows: Sequence[Measurement]) -> dict[tuple, list[Measurement]]:
    """The rows by `curve_key`, in their order."""
    groups: dict[tuple, list[Measurement]] = {}
    for row in rows:
        groups.setdefault(curve_key(row), []).append(row)
    return groups


def fit_token_curve(rows: Sequence[Measurement]) -> TokenCurve | None:
    """The fit over ok `rows` of one model, precision and recipe; None without a row whose FLOPs are counted.

    Least squares of relative errors with no negative coefficient. The shape comes from the counted FLOPs, so one
    context suffices to scale it; two add a fixed cost; three tell attention's speed from that of the rest.
    """
    rows = [row for row in rows if row.ok and row.work and row.micro_s]
    work = rows[-1].work if rows else None
    if work is None:
        return None
    # Columns of FLOPs per sequence, and the seconds that they took: [rows].
    tokens = np.array([row.cell.context for row in rows], dtype=float)
    batches = [row.cell.recipe.micro_batch for row in rows]
    seconds = np.array([fmean(row.micro_s) for row in rows]) / batches
    linear = (work.forward_linear + work.backward_linear) * tokens
    quadratic = (work.forward_quadratic + work.backward_quadratic) * tokens**2
    distinct = len(set(tokens))
    # As many coefficients as the distinct contexts can tell apart. With as many tokens in every micro-step the fixed
    # cost is in proportion to the tokens; it then goes to these, which come first.
    if distinct >= 3:
        a, b, fixed = _nonnegative(np.stack([linear, quadratic, 1 / np.array(batches)], 1), seconds)
    elif distinct == 2:
        a, fixed = _nonnegative(np.stack([linear + quadratic, 1 / np.array(batches)], 1), seconds)
        b = a
    else:
        fixed, a = 0.0, float(np.mean(seconds / (linear + quadratic)))
        b = a
    curve = TokenCurve(fixed, a, b, work, 0.0, int(tokens.max()), distinct)
    measured = zip(tokens, batches, seconds, strict=True)
    misfit = max(abs(curve.seconds(n, batch=b) / s - 1) for n, b, s in measured)
    return replace(curve, error=float(misfit))


def fit_curves(rows: Sequence[Measurement]) -> dict[tuple, TokenCurve | None]:
    """The fit of every `curve_key` among `rows`."""
    return {key: fit_token_curve(group) for key, group in by_curve(rows).items()}


def _nonnegative(columns: np.ndarray, seconds: np.ndarray) -> list[float]:
    """Coefficients >= 0 of `columns` [rows, n] that miss `seconds` [rows] least, relatively: best of all subsets."""
    # Dividing by the seconds makes the errors relative; the target is then 1 everywhere.
    scaled, best, coefficients = columns / seconds[:, None], np.inf, np.zeros(columns.shape[1])
    for size in range(1, columns.shape[1] + 1):
        for chosen in combinations(range(columns.shape[1]), size):
            part = scaled[:, chosen]
            norm = np.linalg.norm(part, axis=0)
            if not norm.all():  # an architecture without attention's quadratic part
                continue
            solution, *_ = np.linalg.lstsq(part / norm, np.ones(len(seconds)), rcond=None)
            misfit = float(np.sum((part / norm @ solution - 1) ** 2))
            if (solution >= 0).all() and misfit < best - 1e-12:
                best, coefficients = misfit, np.zeros(columns.shape[1])
                coefficients[list(chosen)] = solution / norm
    return coefficients.tolist()


@dataclass(frozen=True)
class ArcHours:
    """Hours for sequences of ARC's lengths up to `context`; `reach` is context over the longest one measured."""

    context: int
    coverage: float
    hours_low: float
    hours_mid: float
    hours_high: float
    reach: float


def arc_hours(curve: TokenCurve, like: Measurement, context: int, steps: int) -> ArcHours | None:
    """Hours of load, warm-up and `steps` steps over ARC-length sequences that fit `context`; None where none does, and
    where `kernel_changes`.

    `like` gives the fixed costs and the spread. Where it has timed whole steps over such sequences, these are the hours
    at its own context, and the curve gives only the way to another. Beyond the longest measured context the interval
    grows by 10 % of the middle with every doubling; one context alone says nothing of the shape, which costs 10 % more.
    """
    step_s, own_s = _curve_step_s(curve, like, context), _curve_step_s(curve, like, like.cell.context)
    if step_s is None or kernel_changes(curve, like, context):
        return None
    reach, own = context / curve.longest, context == like.cell.context
    half = curve.error + 0.1 * max(0.0, math.log2(reach)) + (0.1 if curve.contexts == 1 else 0.0)
    if like.arc_step_s and own_s:
        measured_s = float(np.mean(like.arc_step_s))
        step_s, half = step_s * measured_s / own_s, 0.0 if own else half
        half += math.hypot(sampling_half_width(like.arc_step_s), 1.96 * drift(like))
    else:
        half += relative_half_width(like)
    fixed_h, mid_h = fixed_seconds(like) / 3600, steps * step_s / 3600
    return ArcHours(
        context,
        PUBLISHED.coverage(context),
        fixed_h + mid_h * max(0.0, 1 - half),
        fixed_h + mid_h,
        fixed_h + mid_h * (1 + half),
        reach,
    )


def kernel_changes(curve: TokenCurve, like: Measurement, context: int) -> bool:
    """Whether 4-bit products run in another kernel at `context` than at all contexts of the curve: what was measured
    below the border says nothing of it."""
    cell = like.cell
    four_bits = (precision := PRECISIONS.get(cell.precision)) and precision.quantization
    if not four_bits or four_bits.kind != NF4 or not cell.device.startswith("cuda"):
        return False
    batch = cell.recipe.micro_batch
    return batch * curve.longest <= FUSED_4BIT_ROWS < batch * context


def _curve_step_s(curve: TokenCurve, like: Measurement, context: int) -> float | None:
    """Seconds of a step by the curve: sequences that fit `context`, in micro-steps as of `like`, and the update."""
    # Longer sequences are dropped, as training drops them.
    moments = PUBLISHED.moments(context)
    if moments is None:
        return None
    recipe = like.cell.recipe
    sequences = recipe.micro_steps_per_step * recipe.micro_batch
    return sequences * curve.seconds(*moments, batch=recipe.micro_batch) + fmean(like.optimizer_s)
