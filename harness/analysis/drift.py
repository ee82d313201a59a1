"""How much a device's speed changes from a short sample to a long run: what no sample of seconds can see."""

from harness.records.measurement import Measurement

CPU, STEADY, UNSTEADY = "cpu", "steady card", "unsteady card"
# Standard deviation of (mean of a later run) / (mean of the sample).
DRIFT = {
    # Measured on shared machines: three sweeps of 36 cells within four hours had 4.8 %, their sampling error included
    # (bench/LOG.md).
    CPU: 0.045,
    # Assumed until measured: a card of one's own whose clock was flat before and throughout the sample. What is left is
    # the room's temperature and the neighbours of a shared host.
    STEADY: 0.02,
    # Assumed until measured: a card that heat holds down, whose clock moved meanwhile, or that did not tell. Two
    # published runs of 1000 steps on T4s took 27 % and 34 % longer than ten cold steps told, lengths of sequences
    # included; a T4's clock falls from 1590 to about 900 MHz (MLPerf). A sample after soaking has seen most of that.
    UNSTEADY: 0.09,
}
_MOVED = 0.03  # of the clock, between the reading before sampling and the one after
HEAT = "heat"  # as harness.hardware.card_state names it


def drift(row: Measurement) -> float:
    """The drift of the device that `row` was measured on."""
    if row.cell.device.partition(":")[0] == CPU:
        return DRIFT[CPU]
    steady = clock_change(row) is not None and not clock_moved(row) and not is_hot(row)
    return DRIFT[STEADY if steady else UNSTEADY]


def clock_change(row: Measurement) -> float | None:
    """The clock after sampling over the one before, less 1; None where the card told neither."""
    clocks = [state.sm_mhz for state in row.card]
    if len(clocks) < 2 or not clocks[0] or not clocks[-1]:
        return None
    return clocks[-1] / clocks[0] - 1


def clock_moved(row: Measurement) -> bool:
    return abs(clock_change(row) or 0.0) > _MOVED


def is_hot(row: Measurement) -> bool:
    """Whether heat held the card's clock down before or after sampling."""
    return any(HEAT in state.throttle for state in row.card)
