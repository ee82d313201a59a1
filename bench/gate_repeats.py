"""Whether `harness compare --gate` passes what did not change: real repeats of one small cell, or simulated runs.

Repeats measure the same cell again and again, each into a folder of its own under --results; every two that follow each
other are compared. Their spread is what `--drift` of the gate takes for this machine.

    python -m bench.gate_repeats                     ten repeats on this machine
    python -m bench.gate_repeats --simulate 1000     so many pairs of runs, with the noise and drift that are assumed
"""

import argparse
import math
import random
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import stdev

from bench.commands import ROOT, TimeUp, harness

sys.path.insert(0, str(ROOT / "tests"))

from helpers.records import cell, row  # of the tests

from harness.analysis.change import SECONDS, changes
from harness.analysis.drift import CPU, DRIFT, STEADY
from harness.analysis.gate import Limits
from harness.cli.compare import configure
from harness.errors import UserError
from harness.records.measurement import CardState, Measurement

CELLS, SAMPLES, NOISE = 8, 20, 0.02  # of a simulated run: cells, micro-steps of each, their standard deviation
MEMORY_SCATTER = {"cpu": 0.011, "cuda": 0.0}
DRIFTS = {"cpu": DRIFT[CPU], "cuda": DRIFT[STEADY]}
_STEADY = (CardState(sm_mhz=1500.0), CardState(sm_mhz=1500.0))


def simulated(
    rng: random.Random, device: str, common: bool, slower: float = 1.0, cells: int = CELLS
) -> list[Measurement]:
    """The rows of a run: each cell has a drift of its own, or all have one in `common`, and every sample its noise."""
    shared = rng.gauss(0, DRIFTS[device])
    rows = []
    for context in range(100, 100 + cells):
        speed = slower * math.exp(shared if common else rng.gauss(0, DRIFTS[device]))
        micro = tuple(speed * math.exp(rng.gauss(0, NOISE)) for _ in range(SAMPLES))
        peak = round(2**30 * math.exp(rng.gauss(0, MEMORY_SCATTER[device])))
        card = _STEADY if device == "cuda" else ()
        own = cell(context=context, device=device)
        rows.append(row(micro, cell=own, memory={"steady": {"resident": peak}}, card=card))
    return rows


def share_failed(pairs: int, device: str, common: bool, slower: float = 1.0, cells: int = CELLS) -> float:
    """The share of so many pairs of simulated runs that fail the gate, the second one `slower` than the first."""
    rng, limits, failed = random.Random(f"{device} {common} {slower}"), Limits(), 0
    for _ in range(pairs):
        before, after = simulated(rng, device, common, 1.0, cells), simulated(rng, device, common, slower, cells)
        failed += any(map(limits.exceeded, changes((before, []), (after, [])).same_device))
    return failed / pairs


def simulate(pairs: int) -> None:
    print(f"{pairs} pairs of runs per line, {SAMPLES} micro-steps with {100 * NOISE:g} % of noise per cell")
    for device, common in ((device, common) for device in DRIFTS for common in (False, True)):
        how = "shared by all cells" if common else "of each cell"
        for cells in (1, CELLS):
            shares = [100 * share_failed(pairs, device, common, slower, cells) for slower in (1.0, 1.1, 1.2, 1.3, 1.5)]
            print(
                f"{device}, drift {100 * DRIFTS[device]:g} % {how}, {cells} cells: fail unchanged {shares[0]:.1f} %, "
                f"slower by 10 % {shares[1]:.1f}, 20 % {shares[2]:.1f}, 30 % {shares[3]:.1f}, 50 % {shares[4]:.1f}"
            )


def repeat(folder: Path, times: int, ends_at: float) -> list[Path]:
    """So many folders with the same small cell, measured here one after the other; what is there is not measured
    again."""
    folders = [folder / str(number) for number in range(times)]
    for own in folders:
        words = ("bench", "arc-tiny", "--contexts", "128", "--precisions", "fp32", "--weights", "random")
        code, output = harness(ends_at, *words, "--no-accuracy", "--sample-seconds", "2", "--results", str(own))
        if code:
            sys.exit(f"{own}: bench ended with code {code}: {output[-500:]}")
    return folders


def report(folders: Sequence[Path]) -> bool:
    """Prints how every two that follow each other compare; returns whether all passed. Those that were timed while
    others used the cores are not judged."""
    ratios, ends = [], {"passed": 0, "FAILED": 0, "not judged": 0}
    for before, after in pairwise(folders):
        compared = configure(before, after)
        try:
            end = "passed" if compared.passed else "FAILED"
        except UserError:
            end = "not judged"
        ends[end] += 1
        for change in (own for own in compared.changes.same_device if own.what == SECONDS):
            if not change.crowded:
                ratios.append(math.log(change.middle))
            print(f"{after} / {before}: {change.middle:.3f} ({change.low:.3f} to {change.high:.3f}): {end}")
    if len(ratios) > 1:
        print(f"standard deviation of the ratio: {100 * stdev(ratios):.1f} % (--drift {100 * stdev(ratios):.1f})")
    print(", ".join(f"{count} {end}" for end, count in ends.items()))
    return ends["passed"] == len(folders) - 1 > 0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--simulate", type=int, default=0, metavar="PAIRS", help="simulate so many pairs instead")
    parser.add_argument("--repeats", type=int, default=11, help="runs; every two neighbours are a pair")
    parser.add_argument("--results", type=Path, default=Path("results/gate-repeats"))
    parser.add_argument("--minutes", type=float, default=15.0)
    options = parser.parse_args()
    if options.repeats < 2:
        parser.error("--repeats must be 2 or more, for every two neighbours are a pair")
    if options.simulate:
        simulate(options.simulate)
        return
    try:
        folders = repeat(options.results, options.repeats, time.monotonic() + 60 * options.minutes)
    except TimeUp:
        sys.exit("the time is up; the same command goes on")
    sys.exit(not report(folders))


if __name__ == "__main__":
    main()
