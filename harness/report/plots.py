"""Plots for notebooks, by matplotlib, which is imported when the first one is made."""

from typing import TYPE_CHECKING, Any

from harness.errors import UserError
from harness.report.page.canvas import COLOURS, MISSING

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

_INK, _PALE, _LIMIT = COLOURS["s0"], COLOURS["grid"], COLOURS["bad"]


def _pyplot() -> Any:
    """Raises UserError where there is no matplotlib."""
    try:
        from matplotlib import pyplot
    except ImportError as problem:
        raise UserError(MISSING.format(problem)) from None
    return pyplot


def _plain(text: str) -> str:
    """`text` with dollars that begin no formula."""
    return text.replace("$", r"\$")


def measured(frame: "pandas.DataFrame", budget_hours: float) -> "Figure":
    """Of `frame` (COLUMNS of harness.report.columns): memory, predicted and measured, and hours of the whole run.

    One bar per cell; the red lines are the device's memory and the budget. A cell that was not measured has no bar.
    """
    names = [_plain(f"{row.model} {row.precision} {row.context}") for row in frame.itertuples()]
    figure, (memory, hours) = _pyplot().subplots(
        1, 2, figsize=(11, 1.4 + 0.4 * len(names)), sharey=True, layout="constrained"
    )
    rows = range(len(names))
    # Predictions are wider and paler, so that both are seen where they agree.
    memory.barh(rows, frame["predicted_peak_gib"].astype(float), 0.8, color=_PALE, label="predicted")
    memory.barh(rows, frame["peak_gib"].astype(float), 0.4, color=_INK, label="measured")
    total = (frame["peak_gib"].astype(float) + frame["margin_gib"].astype(float)).max()
    if total > 0:
        memory.axvline(total, color=_LIMIT, label="the device's memory")
    memory.set(xlabel="peak memory in GiB", yticks=list(rows), yticklabels=names)
    memory.legend()
    # Rows of older records have the hours of training alone.
    low, mid, high = (
        frame[f"run_hours_{end}"].astype(float).fillna(frame[f"hours_{end}"].astype(float))
        for end in ("low", "mid", "high")
    )
    hours.barh(rows, mid, 0.4, color=_INK, xerr=[mid - low, high - mid], capsize=3)
    hours.axvline(budget_hours, color=_LIMIT, label="budget")
    hours.set(xlabel="hours of the whole run, 95 %")
    hours.legend()
    memory.invert_yaxis()
    return figure


def predicted(frame: "pandas.DataFrame", budget_hours: float) -> "Figure":
    """Of `frame` (COLUMNS of harness.report.predictions): hours against peak memory, a colour per card, both
    logarithmic, with the budget as a line."""
    figure, axes = _pyplot().subplots(figsize=(9, 5), layout="constrained")
    for card, rows in frame.groupby("card", sort=False):
        mid = rows["hours_mid"]
        bars = [mid - rows["hours_low"], rows["hours_high"] - mid]
        axes.errorbar(rows["peak_gib"], mid, yerr=bars, fmt="o", capsize=2, alpha=0.7, label=_plain(str(card)))
    axes.axhline(budget_hours, color=_LIMIT, label=f"budget, {budget_hours:.7g} h")
    # Each model is named once, at its quickest cell.
    for row in frame.sort_values("hours_mid").drop_duplicates("model").itertuples():
        axes.annotate(_plain(row.model), (row.peak_gib, row.hours_mid), xytext=(4, -10), textcoords="offset points")
    axes.set(xscale="log", yscale="log", xlabel="predicted peak memory in GiB", ylabel="predicted hours, 95 %")
    axes.legend()
    return figure
