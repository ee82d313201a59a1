"""How one record stands against another, judged: the overall sentences, the gate, and the CSV."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.analysis.change import ACCURACY, MEMORY, NATS, SECONDS, Change, Changes, Pair, overall
from harness.analysis.comparison import SIGNIFICANT
from harness.analysis.gate import Limits
from harness.errors import UserError
from harness.files import write_output
from harness.records.arm import ArmResult
from harness.records.measurement import Measurement
from harness.report.compare_checks import check_judged
from harness.report.compare_notes import counted, device_of, listed, name_of, status_of
from harness.report.format import ratio, safe_cell

if TYPE_CHECKING:
    import pandas

COLUMNS = ("what", "model", "precision", "context", "arm", "device_a", "device_b", "status_a", "status_b", "a", "b",
           "change", "low", "high", "p", "limit", "smallest_seen", "gate")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The comparison of two records, A before and B after, judged by `limits`."""

    a: Path
    b: Path
    changes: Changes
    limits: Limits
    any_device: bool = False  # what is on different devices is judged too
    allow_missing: bool = False  # what only A has fails no gate

    @property
    def frame(self) -> "pandas.DataFrame":
        """One row per comparison, in the columns of `harness compare --csv` (docs/compare.md)."""
        import pandas

        return pandas.DataFrame(flat(self), columns=list(COLUMNS))

    @property
    def judged(self) -> list[Change]:
        """What the gate judges."""
        return self.changes.same_device + (self.changes.other_devices if self.any_device else [])

    @property
    def exceeded(self) -> list[Change]:
        return [change for change in self.judged if self.limits.exceeded(change)]

    @property
    def failed(self) -> list[Pair]:
        """What the gate judges and fails now."""
        return self.among(self.changes.failed)

    @property
    def diverged(self) -> list[Pair]:
        """Fine-tunes that the gate judges and whose losses are no numbers any more."""
        return self.among(self.changes.diverged)

    @property
    def lost(self) -> list[Measurement | ArmResult]:
        """What ran in A and is not in B, unless that is allowed."""
        return [] if self.allow_missing else self.changes.lost

    @property
    def passed(self) -> bool:
        """Whether nothing is slower, larger or less accurate beyond the limits, and nothing fails or lacks that ran
        before.

        Raises UserError where nothing can be judged, which is no pass.
        """
        if self.exceeded or self.failed or self.diverged:
            return False
        check_judged(f"{self.a} and {self.b}", self.changes, self.judged, self.among)
        return not self.lost

    def among(self, pairs: Iterable[Pair]) -> list[Pair]:
        """Those that the gate judges."""
        return [pair for pair in pairs if self.any_device or device_of(pair[0]) == device_of(pair[1])]

    @property
    def sentences(self) -> list[str]:
        """The overall results, those of different devices apart."""
        made = _sentences(self.changes.same_device)
        for names, own in by_devices(self.changes.other_devices).items():
            made += [f"On different devices (A: {names[0]}; B: {names[1]}): {text}" for text in _sentences(own)]
        return made


def _sentences(own: Sequence[Change]) -> list[str]:
    made = []
    if speed := overall(own, SECONDS):
        low, middle, high = speed.low, speed.middle, speed.high
        over = f"over {counted(speed.cells, 'cell')}"
        if middle < 1:
            name, other, low, middle, high = "B", "A", 1 / high, 1 / middle, 1 / low
        else:
            name, other = "A", "B"
        text = f"{name} is {ratio(middle)} times as fast as {other} ({ratio(low)} to {ratio(high)}) {over}"
        made.append(f"{text}." if speed.told_apart else f"Speeds are not told apart: {text}.")
    if memory := overall(own, MEMORY):
        span = f"{ratio(memory.low)} to {ratio(memory.high)}"
        text = f"B takes {ratio(memory.middle)} times A's peak memory ({span})"
        end = "" if memory.told_apart else ": not told apart"
        made.append(f"{text} over {counted(memory.cells, 'cell')}{end}.")
    arms = [change for change in own if change.what in (NATS, ACCURACY)]
    if arms:
        apart: dict[int, list[Change]] = {}
        for change in arms:
            if change.p is not None and change.p < SIGNIFICANT:
                apart.setdefault(id(change.row), []).append(change)
        names = [f"{own[0].row.label} ({_verdict(own)})" for own in apart.values()]  # type: ignore[union-attr]
        total = len({id(change.row) for change in arms})
        which = f"told apart in accuracy or loss (p for their number): {listed(names) or 'none'}"
        made.append(f"Of {counted(total, 'arm')} {which}.")
    return made


def _verdict(own: Sequence[Change]) -> str:
    """Of an arm by what tells it apart: "worse", or "better in loss, worse in accuracy"."""
    verdicts = {change.what: "worse" if change.worse > 0 else "better" for change in own}
    if len(set(verdicts.values())) == 1:
        return verdicts[own[0].what]
    return f"{verdicts[NATS]} in loss, {verdicts[ACCURACY]} in accuracy"


def by_devices(every: Iterable[Change]) -> dict[tuple[str, str], list[Change]]:
    """The changes by the devices of A and B."""
    groups: dict[tuple[str, str], list[Change]] = {}
    for change in every:
        groups.setdefault((device_of(change.row), device_of(change.counterpart)), []).append(change)
    return groups


def gate_line(compared: Compared) -> str:
    """The gate's verdict and what it could have seen, or why there is no verdict, in a sentence."""
    try:
        compared.passed  # noqa: B018
    except UserError as problem:
        return f"Gate: no verdict: {problem}."
    judged = [change for change in compared.judged if not change.crowded]
    seen: dict[str, list[float]] = {}
    for change in judged:
        seen.setdefault(change.what, []).append(100 * compared.limits.smallest(change))
    # What it could not have seen is no news of it.
    ends = {what: dict.fromkeys((f"{min(own):.0f}", f"{max(own):.0f}")) for what, own in seen.items()}
    parts = [f"{what} {' to '.join(own)} {'points' if what == ACCURACY else '%'}" for what, own in ends.items()]
    power = f" What it sees, from: {'; '.join(parts)}." if parts else ""
    names = [f"{change.what} of {name_of(change.row)}" for change in compared.exceeded]
    names += [f"{name_of(a)}, which is {status_of(b)}" for a, b in compared.failed]
    names += [f"{name_of(a)}, whose losses are no numbers" for a, _ in compared.diverged]
    reasons = [f"failed by {listed(names)}"] if names else []
    if compared.lost:
        lost = (
            f"{counted(len(compared.lost), 'row')} ran in A and {'is' if len(compared.lost) == 1 else 'are'} not in B"
        )
        rows = listed([name_of(row) for row in compared.lost])
        reasons.append(f"failed, for {lost} (measure them, or --allow-missing): {rows}")
    own = compared.changes
    left_out = len(own.same_device) + len(own.other_devices) + len(own.untimed) - len(judged)
    beside = f", {left_out} not judged" if left_out else ""
    verdict = "; ".join(reasons) or f"passed, {counted(len(judged), 'comparison')}{beside}"
    return f"Gate: {verdict}.{power}"


def flat(compared: Compared) -> list[dict[str, Any]]:
    """One dict of COLUMNS per comparison, and per row that is in one record only or failed."""
    rows = []
    among = {id(change) for change in compared.judged}
    for change in (*compared.changes.same_device, *compared.changes.other_devices):
        judged = id(change) in among and not change.crowded
        verdict = ("worse" if compared.limits.exceeded(change) else "passed") if judged else "not judged"
        rows.append(
            _columns(change.what, change.row, change.counterpart)
            | {"a": change.before, "b": change.after, "change": change.middle, "low": change.low, "high": change.high}
            | {"p": change.p, "limit": compared.limits.share(change), "smallest_seen": compared.limits.smallest(change)}
            | {"gate": verdict}
        )
    own = compared.changes
    failed = {id(b) for _, b in compared.failed}
    lost = {id(row) for row in compared.lost}
    rows += [_columns("failed", a, b) | {"gate": "worse" if id(b) in failed else "not judged"} for a, b in own.failed]
    diverged = {id(a) for a, _ in compared.diverged}
    rows += [
        _columns("losses no numbers", a, b) | {"gate": "worse" if id(a) in diverged else "not judged"}
        for a, b in own.diverged
    ]
    rows += [_columns("mended", a, b) for a, b in own.mended]
    for matched in (own.cells, own.arms):
        rows += [
            _columns("only in A", row, None) | {"gate": "worse" if id(row) in lost else "not judged"}
            for row in matched.only_before
        ]
        rows += [_columns("only in B", None, row) for row in matched.only_after]
    return [{name: safe_cell(v) if isinstance(v, str) else v for name, v in row.items()} for row in rows]


def _columns(what: str, a: Measurement | ArmResult | None, b: Measurement | ArmResult | None) -> dict[str, Any]:
    row = a or b
    assert row is not None
    spec = row.spec if isinstance(row, ArmResult) else row.cell
    return dict.fromkeys(COLUMNS) | {
        "what": what,
        "model": spec.model.name,
        "precision": spec.precision if isinstance(row, ArmResult) else row.cell.label,
        "context": spec.context,
        "arm": row.label if isinstance(row, ArmResult) else None,
        "device_a": device_of(a) if a else None,
        "device_b": device_of(b) if b else None,
        "status_a": a.status if a else None,
        "status_b": b.status if b else None,
    }


def write_csv(compared: Compared, path: Path) -> None:
    """Writes `flat` to `path`, to six figures, whole or not at all. Raises UserError where it cannot be written."""
    write_output(path, compared.frame.to_csv(index=False, float_format="%.6g"))
