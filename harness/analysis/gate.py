"""A gate for a change of code, libraries or drivers: what is slower, larger or less accurate than noise explains.

A change must exceed the tolerance and three of its standard deviations, and so must the best end of its interval: with
normal noise a cell that did not change fails the gate once in three million times, so that a sweep of many cells passes
too. What it sees are five standard deviations, then: 15 % on a steady card, 37 % on a shared CPU (`Limits.smallest`);
on a machine that is known to be steadier it sees less (`harness compare --drift`).
"""

import math
from dataclasses import dataclass

from harness.analysis.change import ACCURACY, Z95, Change


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the gate lets pass: a change up to `tolerance` (a share; of accuracy, of all tasks), or up to so many
    standard `deviations` of the change where that is more."""

    tolerance: float = 0.05
    deviations: float = 3.0

    def of(self, change: Change) -> float:
        tolerance = self.tolerance if change.what == ACCURACY else math.log1p(self.tolerance)
        return max(tolerance, self.deviations * change.deviation)

    def exceeded(self, change: Change) -> bool:
        """Whether it is worse by more than the limit, at the best end of its interval too."""
        return not change.crowded and min(change.worse, change.surely_worse) > self.of(change)

    def share(self, change: Change) -> float:
        """The limit as a share: 0.05 for 5 % more seconds, bytes or nats, or 5 points less accurate."""
        return self.of(change) if change.what == ACCURACY else math.expm1(self.of(change))

    def smallest(self, change: Change) -> float:
        """The smallest worsening that the gate would see: a share, as 0.2 for a fifth slower."""
        seen = self.of(change) + Z95 * change.deviation
        return seen if change.what == ACCURACY else math.expm1(seen)
