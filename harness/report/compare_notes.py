"""What must be known beside the ratios of two records: versions, settings, what ran in one only; names of rows."""

from collections.abc import Callable, Sequence
from typing import Any

from harness.analysis.change import Changes, Pair, has_losses
from harness.records.arm import ArmResult
from harness.records.measurement import Measurement
from harness.report.format import cell_name

MOST_NAMES = 8


def notes(own: Changes) -> list[str]:
    """What else must be known to read the numbers."""
    pairs: list[tuple[Any, Any]] = [*own.cells.pairs, *own.cells.other_devices]
    pairs += [*own.arms.pairs, *own.arms.other_devices]
    made = _versions(pairs)
    made += _settings([*own.cells.pairs, *own.cells.other_devices])
    # What cannot be compared.
    for what, failed in (("ran in A, not in B", own.failed), ("failed in A, runs in B", own.mended)):
        if failed:
            names = [f"{name_of(a)} ({status_of(a if what[0] == 'f' else b)})" for a, b in failed]
            made.append(f"{what}: {listed(names)}.")
    before: list[Any] = [*own.cells.only_before, *own.arms.only_before]
    after: list[Any] = [*own.cells.only_after, *own.arms.only_after]
    for side, rows in (("A", before), ("B", after)):
        if rows:
            made.append(f"only in {side}: {counted(len(rows), 'row')}: {listed([name_of(row) for row in rows])}.")
    if same := sum(a.key == b.key and a.started == b.started for a, b in pairs):
        made.append(f"{counted(same, 'row')} the very same measurement in both: nothing was measured again.")
    if crowded := sum(change.crowded for change in (*own.same_device, *own.other_devices)):
        made.append(
            f"{counted(crowded, 'cell')} timed while others used the cores: in the table, but in no sentence and not "
            "judged by speed; measure again with --fresh."
        )
    # What ran in both and is not compared all the same.
    if own.untimed:
        made.append(f"{counted(len(own.untimed), 'cell')} whose samples give no interval: seconds are not compared.")
    made += _left_out(own.unpeaked, "Peak memory is not compared, for want of a peak", lambda row: bool(row.peak_bytes))
    made += _left_out(own.unread, "Nats per grid are not compared, for want of losses that are numbers", has_losses)
    return made


def _left_out(pairs: Sequence[Pair], text: str, has: Callable[[Any], bool]) -> list[str]:
    """`text` with the record that lacks it, A or B, and the names of rows; nothing without any."""
    sides = {side for pair in pairs for side, row in zip("AB", pair, strict=True) if not has(row)}
    place = f"in {' and '.join(sorted(sides))}" if sides else "of the same tasks"
    return [f"{text} {place}: {listed([name_of(a) for a, _ in pairs])}."] if pairs else []


def _versions(pairs: Sequence[tuple[Any, Any]]) -> list[str]:
    """Libraries, commits and what a card said of itself that differ, over all common rows."""
    sides: list[dict[str, set[str]]] = [{}, {}]
    for pair in pairs:
        for values, row in zip(sides, pair, strict=True):
            named = {**row.versions, **row.environment, "commit": row.commit and row.commit[:12]}
            if isinstance(row, ArmResult):
                named["weights"] = row.spec.weights
            for name, value in named.items():
                values.setdefault(name, set()).add(str(value) if value else "not recorded")
    made = []
    for name in sorted(set(sides[0]) | set(sides[1])):
        before, after = (", ".join(sorted(values.get(name, {"not recorded"}))) for values in sides)
        if before != after:
            made.append(f"{name}: A {before}; B {after}.")
    return made


def _settings(pairs: Sequence[tuple[Measurement, Measurement]]) -> list[str]:
    """Cells that ran otherwise, though the same was requested."""
    made = []
    for what, read in (("kernels", lambda row: row.kernels), ("micro-batch", lambda row: row.cell.recipe.micro_batch)):
        other = [(a, b) for a, b in pairs if a.ok and b.ok and read(a) != read(b)]
        if other:
            a, b = other[0]
            made.append(f"other {what} in {counted(len(other), 'cell')}; {name_of(a)}: A {read(a)}; B {read(b)}.")
    return made


def name_of(row: Measurement | ArmResult) -> str:
    """A cell or an arm in words: "qwen2.5-0.5b int4 2048", "qwen2.5-0.5b fp16 + color swap"."""
    if isinstance(row, Measurement):
        return cell_name(row.cell)
    return f"{row.spec.model.name} {row.spec.precision} {row.label}"


def device_of(row: Measurement | ArmResult) -> str:
    return row.cell.device_name if isinstance(row, Measurement) else row.spec.device_name


def status_of(row: Measurement | ArmResult) -> str:
    return row.status.replace("_", " ")


def listed(names: Sequence[str]) -> str:
    """The first few of the names."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
