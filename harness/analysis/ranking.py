"""Which candidate to take: speed and accuracy brought together, under one budget for everything.

Three things are kept apart: the accuracy measured of a run, the chance of being the best of all candidates on such
tasks, and the accuracy projected to the dose that the budget allows, as an interval or refused with its reason. A
candidate without a measured accuracy is given none.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from harness.analysis.candidates import Candidate, candidates, interval, left_out
from harness.analysis.comparison import Comparison, chosen, compare, holm_adjusted
from harness.arc.lengths import PUBLISHED
from harness.digits import rounded
from harness.records.cell import Goal

__all__ = ["Candidate", "Ranking", "candidates", "interval", "left_out", "rank_candidates"]
_HALF = 0.5  # of ARC's sequences: a context that admits fewer is of little use
_ALL_PAIRS = 5  # candidates, whose pairs a person still reads


@dataclass(frozen=True)
class Ranking:
    """Candidates that fit, the best first, those that do not, and the sentences that say why."""

    fits: tuple[Candidate, ...]
    too_slow: tuple[Candidate, ...]
    tied: tuple[Candidate, ...]
    why: str
    pairs: tuple[Comparison, ...] = ()  # the accuracies of those that fit, each two beside each other

    @property
    def best(self) -> Candidate | None:
        """The one that `why` names; None where none fits."""
        if not self.fits or self.fits[0].result:
            return self.fits[0] if self.fits else None
        return _largest(self.fits)

    @property
    def named(self) -> Candidate | None:
        """The best, else the one nearest to the budget: whichever `why` names; None where nothing was measured."""
        return self.best or next(iter(self.too_slow), None)


def rank_candidates(measured: Sequence[Candidate], goal: Goal) -> Ranking:
    """The candidates ranked: those that fit the budget with all steps, by accuracy where there is one.

    By the accuracy at the dose that the budget allows where every candidate with an accuracy has one, else by the
    measured one; those whose accuracy was not measured come after, the largest model first. One cell per model and
    precision: of those that fit one with an accuracy, then the longest context.
    """
    # Slow ones the nearest first; of those that fit the last of each subject stays.
    slow = tuple(sorted((c for c in measured if not c.fits(goal)), key=lambda c: c.hours_high))
    fitting = sorted((c for c in measured if c.fits(goal)), key=_preference)
    longest = {c.subject: c for c in fitting}
    # By accuracy, or by size.
    scored = [c for c in longest.values() if c.result]
    estimates = [c.estimate for c in scored if c.estimate]
    projected = bool(estimates) and not any(estimate.refused for estimate in estimates)
    scored.sort(key=lambda c: (-_accuracy(c, projected), -_accuracy(c), c.hours_high))
    others = sorted((c for c in longest.values() if not c.result), key=lambda c: (-(c.row.params or 0), c.hours_high))
    pairs = _pairs(scored)
    # Those that are told from the first one, and not by being better.
    first = [pair for pair in pairs if pair.first is scored[0].result]
    apart = {id(pair.second) for pair in first if pair.told_apart and not pair.better}
    tied = tuple(c for c in scored[1:] if id(c.result) not in apart)
    if not longest:
        why = _none(slow, goal)
    else:
        why = _why(scored, tied, first, projected, goal) if scored else _by_size(others, slow, goal)
    return Ranking((*scored, *others), slow, tied, why, tuple(pairs))


def _preference(candidate: Candidate) -> tuple[bool, int, float]:
    return candidate.result is not None, candidate.context, -candidate.hours_high


def _by_size(fitting: Sequence[Candidate], slow: Sequence[Candidate], goal: Goal) -> str:
    """Names the largest model."""
    best = _largest(fitting)
    models = {c.row.cell.model.name for c in fitting}
    alike = {c.row.cell.model.name for c in fitting if _useful(c) == _useful(best)}
    why = f"the largest of {len(alike)} models that fit" if len(alike) > 1 else "the only model that fits"
    where = " at a context that admits half of ARC's sequences" if alike != models else ""
    span, over = best.run.span, " over ARC's lengths" if best.run.arc else ""
    work = f"{best.run.run.work}{over}{' and the answers' if best.run.answers else ''}"
    uncounted = "" if best.run.answers else ", answers not counted"
    unknown = "What has a measured accuracy does not fit" if any(c.result for c in slow) else "No accuracy was measured"
    return (
        f"Best candidate: {best.name} at {best.context} tokens: {why} {goal.budget_hours:.7g} h{where}, with "
        f"{work} in {rounded(span.mid)} h ({rounded(span.low)} to {rounded(span.high)}{uncounted}); its context admits "
        f"{100 * PUBLISHED.coverage(best.context):.0f} % of ARC's leave-one-out sequences. {unknown}: "
        "it may not be the best."
    )


def _useful(candidate: Candidate) -> bool:
    return PUBLISHED.coverage(candidate.context) >= _HALF


def _largest(fitting: Sequence[Candidate]) -> Candidate:
    """The largest model, at a context that admits half of ARC's sequences if any such fits.

    Among the cells of that model the longest context wins, then the fewest hours.
    """
    return max(fitting, key=lambda c: (_useful(c), c.row.params or 0, c.context, -c.run.mid))


def _accuracy(candidate: Candidate, projected: bool = False) -> float:
    """The projected or the measured accuracy, 0 to 1; 0 where there is none."""
    if projected and candidate.estimate:
        return candidate.estimate.mid
    return candidate.result.mean("attempts") if candidate.result else 0.0


def _pairs(scored: Sequence[Candidate]) -> list[Comparison]:
    """Every two of the candidates, the better one first, with Holm's p over all; of many those with the first alone."""
    made = [
        compare(a.result, b.result, max(a.noise, b.noise, key=lambda noise: noise.accuracy))
        for a, b in combinations(scored, 2)
        if a.result and b.result and (len(scored) <= _ALL_PAIRS or a is scored[0])
    ]
    return holm_adjusted(made)


def _ties(tied: Sequence[Candidate], pairs: Sequence[Comparison]) -> str:
    """The candidates that nothing tells from the first one, and those that the loss puts before it."""
    if not tied:
        return ""
    own = {id(pair.second): pair for pair in pairs}
    ahead = [c.name for c in tied if own[id(c.result)].told_apart]
    names = [c.name for c in tied if not own[id(c.result)].told_apart]
    text = f" By loss {', '.join(ahead)} {'is' if len(ahead) == 1 else 'are'} ahead of it." if ahead else ""
    if names:
        least = min(own[id(c.result)].smallest_p for c in tied if c.name in names)
        text = (
            f" Not told apart from {', '.join(names)} on these tasks (p {rounded(least, 2)}): a tie; "
            + f"more --tasks would tell.{text}"
        )
    return text


def _why(
    scored: Sequence[Candidate], tied: Sequence[Candidate], pairs: Sequence[Comparison], projected: bool, goal: Goal
) -> str:
    first, by = scored[0], "projected" if projected else "measured"
    accuracy, run = 100 * _accuracy(first, projected), first.bought if projected else first.run
    which = f"the highest {by} accuracy of {len(scored)}" if len(scored) > 1 else f"the only one with a {by} accuracy"
    text = (
        f"Pick: {first.name} at {first.context} tokens: {which}, {accuracy:.1f} %{_less_luck(scored, projected)}; "
        f"{run.sentence(goal.budget_hours)}."
    )
    return text + _ties(tied, pairs)


def _less_luck(scored: Sequence[Candidate], projected: bool) -> str:
    """The accuracy less what being the best of all arms of all candidates flatters it by; empty where nothing was
    chosen, or where the accuracy is projected."""
    arms = [arm for c in scored for arm in c.chosen_from]
    seeds = [c.noise.of(arm) for c in scored for arm in c.chosen_from]
    if projected or len(arms) < 2 or len({len(arm.scores) for arm in arms}) > 1:
        return ""
    best = next(i for i, arm in enumerate(arms) if arm is scored[0].result)
    low, middle, high = chosen([arm.by_task for arm in arms], best, seeds)
    return f" (less the luck of being chosen {100 * middle:.1f} %, {100 * low:.0f} to {100 * high:.0f})"


def _none(slow: Sequence[Candidate], goal: Goal) -> str:
    if not slow:
        return "Pick: none: no cell was measured."
    nearest = slow[0]
    share = nearest.run.share * goal.budget_hours
    where = f"Pick: none fits {goal.budget_hours:.7g} h. Nearest: {nearest.name} at {nearest.context} tokens: "
    if not math.isfinite(nearest.hours_high):
        return (
            f"{where}{rounded(nearest.run.mid)} h at the middle, but its few samples give no interval; measure longer "
            "with bench --fresh --sample-seconds."
        )
    return (
        f"{where}{nearest.run.sentence(goal.budget_hours)}; {nearest.bought.run.steps} steps would fit, or all on a "
        f"device {rounded(nearest.hours_high / share)} times as fast."
    )
