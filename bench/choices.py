"""Does the interval of the chosen arm hold its true accuracy? Simulated tables of arms whose true accuracies are known.

In a table tasks differ in difficulty, arms share it in part (`shared`, the correlation of their luck), and the best arm
is chosen by what it solved. Printed per kind of table: how often the truth lies in Wilson's interval of the chosen arm,
as if nothing had been chosen, and in the corrected one (harness.analysis.comparison.chosen).

    python -m bench.choices [--tables 1000]
"""

import argparse
from collections.abc import Iterator
from itertools import product
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from harness.analysis.comparison import chosen
from harness.analysis.stats import wilson
from harness.report.style import console, plain_table


class Setting(NamedTuple):
    tasks: int
    arms: int
    base: float  # true accuracy of the worst arm
    gain: float  # of the best one over it; the others lie between
    shared: float
    seeds: float = 0.0  # standard deviation that another training gives an arm's accuracy on all tasks


SETTINGS = [
    Setting(tasks, arms, base, gain, shared)
    for (tasks, arms), (base, gain), shared in product(
        ((20, 2), (20, 6), (20, 14), (60, 6), (120, 14), (400, 6)), ((0.1, 0.0), (0.3, 0.0), (0.3, 0.15)), (0.5, 0.85)
    )
] + [Setting(*kind, 0.3, gain, 0.5, 0.03) for kind in ((60, 6), (400, 6), (400, 14)) for gain in (0.0, 0.15)]


def draw(setting: Setting, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(solved [arms, tasks], true accuracies [arms]): an arm solves a task whose difficulty is below its level."""
    true = setting.base + np.linspace(0, setting.gain, setting.arms)
    trained = np.clip(true + setting.seeds * rng.standard_normal(setting.arms), 0.001, 0.999)
    levels = np.array([NormalDist().inv_cdf(accuracy) for accuracy in trained])
    common, own = rng.standard_normal((1, setting.tasks)), rng.standard_normal((setting.arms, setting.tasks))
    difficulty = np.sqrt(setting.shared) * common + np.sqrt(1 - setting.shared) * own
    return (difficulty < levels[:, None]).astype(float), true


def held(setting: Setting, tables: int, seed: int = 0) -> Iterator[tuple[bool, bool]]:
    """Per table: whether Wilson's interval of the chosen arm, and whether the corrected one, hold its true accuracy."""
    rng = np.random.default_rng(seed)
    for _ in range(tables):
        solved, true = draw(setting, rng)
        means = solved.mean(1)
        best = int(rng.choice(np.flatnonzero(means >= means.max() - 1e-9)))
        naive = wilson(float(solved[best].sum()), setting.tasks)
        low, _, high = chosen(solved.tolist(), best, [setting.seeds] * setting.arms, draws=300)
        yield naive[0] <= true[best] <= naive[1], low <= true[best] <= high


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tables", type=int, default=1000, help="per kind")
    options = parser.parse_args()
    table = plain_table("tasks|arms|true %|shared|seeds\n%|Wilson\n%|corrected\n%")
    all_held = []
    for setting in SETTINGS:
        pairs = np.array(list(held(setting, options.tables)))
        all_held.append(pairs.mean(0))
        naive, corrected = 100 * pairs.mean(0)
        span = f"{100 * setting.base:.0f} to {100 * (setting.base + setting.gain):.0f}"
        table.add_row(
            *map(str, (setting.tasks, setting.arms, span, setting.shared)), f"{100 * setting.seeds:.0f}",
            f"{naive:.1f}", f"{corrected:.1f}",
        )  # fmt: skip
    naive, corrected = 100 * np.mean(all_held, 0)
    table.add_row("all", "", "", "", "", f"{naive:.1f}", f"{corrected:.1f}")
    console().print(table)


if __name__ == "__main__":
    main()
