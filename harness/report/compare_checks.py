"""Whether two records have enough in common, and enough measured, for a gate to pass."""

from collections.abc import Callable, Iterable, Sequence

from harness.analysis.change import MEMORY, SECONDS, Change, Changes, Pair
from harness.errors import UserError
from harness.records.arm import ArmResult
from harness.records.measurement import Measurement


def check_judged(
    names: str, own: Changes, judged: Sequence[Change], among: Callable[[Iterable[Pair]], Sequence[Pair]]
) -> None:
    """Raises UserError where `judged`, the changes that a gate judges, are no ground for passing; `names` are those of
    the records, `among` the pairs that it judges."""
    if not judged and own.other_devices:
        raise UserError(f"{names} are of different devices, which is not judged; measure both on one, or --any-device")
    if not judged:
        raise UserError(f"{names} have nothing that ran in both; harness report says what failed")
    if all(_same_measurement(change.row, change.counterpart) for change in judged):
        raise UserError(
            f"{names} have the very same measurements, so nothing was measured again; measure B with bench --fresh, or "
            "into another folder"
        )
    timed = [change for change in judged if change.what == SECONDS]
    if timed and all(change.crowded for change in timed):
        raise UserError(
            "every common cell was timed while others used the cores, so speed cannot be judged; measure again with "
            "bench --fresh"
        )
    if not timed and among(own.untimed):
        raise UserError(
            "no common cell has samples enough for an interval of its seconds, so speed cannot be judged; measure "
            "again with bench --fresh"
        )
    peaks = any(change.what == MEMORY for change in judged)
    if not peaks and any(a.peak_bytes for a, _ in among(own.unpeaked) if isinstance(a, Measurement)):
        raise UserError(
            "no common cell of B has a peak of memory, so memory cannot be judged; measure it again with bench --fresh"
        )


def _same_measurement(a: Measurement | ArmResult, b: Measurement | ArmResult) -> bool:
    """Whether it is one measurement, copied. Two losses that are no numbers are the same here."""
    return (a.key, a.started) == (b.key, b.started) and repr(a) == repr(b)
