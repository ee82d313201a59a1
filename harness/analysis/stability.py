"""Warnings about a row's samples: too few, too noisy, drifting, or of two speeds."""

from statistics import fmean, median

from harness.analysis import stats
from harness.analysis.drift import clock_change, clock_moved, is_hot
from harness.catalog import trainable
from harness.digits import rounded
from harness.records.measurement import CROWDED, Measurement

_SHARE_NEEDED = 0.02  # half-width of the median that sampling aims at


def warnings(row: Measurement) -> list[str]:
    """One sentence per fault of the row's samples; it ends with the remedy. A row that was timed beside others says so
    in a note, which explains all but what the card says of its own clock and heat."""
    # A row of an earlier version, which did not refuse it.
    refused = [f"{why}."] if (why := trainable.overflow(row.cell.model, row.cell.compute_dtype)) else []
    if CROWDED in row.notes:
        return refused + _of_card(row)
    values, sentences = row.micro_s, refused
    mid = median(values)
    # Too few samples, or too noisy ones.
    half = stats.median_half_width(values)
    if half is None or half > _SHARE_NEEDED:
        precision = f"to ± {100 * half:.0f} %" if half is not None else f"from {len(values)} samples only"
        sentences.append(f"the median micro-step is known {precision}; sample longer with --sample-seconds.")
    spread = stats.stdev(values) / fmean(values) if len(values) > 1 else 0.0
    if spread >= 0.10:
        sentences.append(f"the micro-steps vary by {100 * spread:.0f} %; close what else runs on this machine.")
    # Two heaps explain outliers too, so only one of the two is said.
    if levels := stats.two_speeds(values):
        sentences.append(
            f"two speeds, {rounded(levels[0])} s and {rounded(levels[1])} s; something switches (clock, power or a "
            "neighbour): measure again with --fresh."
        )
    elif max(values) >= 1.5 * mid or min(values) <= 0.5 * mid:
        odd = max(values, key=lambda value: abs(value - mid))
        sentences.append(f"one micro-step took {odd / mid:.1f} times the median; measure again with --fresh.")
    # A machine that heats up, or a neighbour that comes.
    if trend := stats.trend(values):
        way = "slower" if trend > 0 else "faster"
        sentences.append(
            f"micro-steps grew {100 * abs(trend):.0f} % {way} while sampling (heat or a neighbour); "
            "sample longer with --sample-seconds."
        )
    return sentences + _of_card(row)


def _of_card(row: Measurement) -> list[str]:
    """What the card said of itself before and after sampling, where its speed did not stand still."""
    sentences = []
    if clock_moved(row):
        before, after = row.card[0], row.card[-1]
        celsius = f" at {before.celsius:.0f} and {after.celsius:.0f} C" if before.celsius and after.celsius else ""
        sentences.append(
            f"the card's clock moved by {100 * (clock_change(row) or 0):+.0f} % while sampling, from "
            f"{before.sm_mhz:.0f} to {after.sm_mhz:.0f} MHz{celsius}; the interval is wider for it: sample longer with "
            "--sample-seconds."
        )
    if is_hot(row):
        sentences.append("heat holds the card's clock down; the interval is wider for it: cool it, or expect it so.")
    return sentences
