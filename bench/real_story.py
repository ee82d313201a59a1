"""The arms of a real model beside arc24's published ones, as Markdown: losses, and which of arc24's findings agree."""

from collections.abc import Sequence
from pathlib import Path

from harness.analysis.comparison import SIGNIFICANT, Interval, compare
from harness.analysis.retraining import Noise
from harness.analysis.stats import holm
from harness.catalog.published import ARMS
from harness.errors import UserError
from harness.files import replace_atomically
from harness.records.arm import ArmResult
from harness.report.comparison import p_value

BASELINE, SWAP = "baseline", "+ color swap"
BEGIN, END = "<!-- by python -m bench.real --only-table --keep -->", "<!-- end of what bench.real writes -->"
LOWERS, NO_GAIN = "lowers the loss", "no gain"
# What arc24 found: an arm against another.
FINDINGS = (
    ("n-1", BASELINE, LOWERS),
    ("+ geometric", "n-1", LOWERS),
    (SWAP, "+ geometric", LOWERS),
    (SWAP, BASELINE, LOWERS),
    ("preserve color", SWAP, NO_GAIN),
    ("n-2", SWAP, NO_GAIN),
)
_MISSING = "not measured yet"


def story(rows: Sequence[ArmResult], noise: Noise) -> list[str]:
    """Lines of two tables: each loss with its distance to its own baseline's; and of arc24's findings our difference in
    nats per grid with an interval, Holm's p over all of them, and whether it agrees. Raises UserError without a
    baseline."""
    of = {row.arm: row for row in rows}
    if BASELINE not in of:
        raise UserError(f"no {BASELINE} among these rows; run it first")
    ours, theirs = of[BASELINE].grid_nll, ARMS[0].loss
    lines = ["| arm | arc24, Phi-3, published: nats per token | here: nats per grid | solved |", "|---|---|---|---|"]
    for known in ARMS:
        row = of.get(known.arm)
        here = f"{_MISSING} | "
        if row:
            here = f"{_with_change(row.grid_nll, ours)} | {sum(row.solved)} of {len(row.solved)}"
        lines.append(f"| {known.arm} | {known.words or _with_change(known.loss, theirs)} | {here} |")
    lines += ["", "| arc24 found | here, nats per grid | p | |", "|---|---|---|---|"]
    made = {
        finding: compared
        for finding in FINDINGS
        if finding[0] in of and finding[1] in of
        and (compared := compare(of[finding[1]], of[finding[0]], noise)).nats and compared.nats_p is not None
    }  # fmt: skip
    adjusted = dict(zip(made, holm([c.nats_p or 0.0 for c in made.values()]), strict=True))
    for finding in FINDINGS:
        arm, other, found = finding
        here = f"{_MISSING} | | "
        if finding in made and (nats := made[finding].nats):
            p = adjusted[finding]
            here = f"{nats[1]:+.2f} ({nats[0]:+.2f} to {nats[2]:+.2f}) | {p_value(p)} | {verdict(found, nats, p)}"
        lines.append(f"| {arm} against {other}: {found} | {here} |")
    return lines


def verdict(found: str, nats: Interval, p: float) -> str:
    """Whether our difference agrees with what was found. That no gain is seen does not show that there is none."""
    if p >= SIGNIFICANT:
        return "no gain seen" if found == NO_GAIN else "not told apart"
    return "agrees" if (nats[1] < 0) == (found == LOWERS) else "does not agree"


def write(document: Path, lines: Sequence[str]) -> None:
    """Puts `lines` between the two marks of `document`. Raises UserError where it has none."""
    text = document.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{document}: has no lines {BEGIN} and {END}")
    replace_atomically(document, "\n".join([before + BEGIN, "", *lines, "", END + after]))


def _with_change(loss: float | None, first: float | None) -> str:
    if loss is None or not first:
        return "-"
    return f"{loss:.4g}" + (f" ({100 * (loss / first - 1):+.0f} %)" if loss != first else "")
