"""The smallest set of cards that surely does the whole goal, and the cheapest by the user's prices."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.catalog import accelerators
from harness.catalog.accelerators import CPU, Accelerator
from harness.digits import fixed, rounded
from harness.errors import UserError
from harness.predict import calibration_files
from harness.predict.calibration import Calibration
from harness.predict.prediction import Prediction
from harness.predict.query import OnDone, PredictQuery, Unpredictable, predict_all
from harness.predict.trace_pool import TracePool
from harness.records.cell import Goal
from harness.text import quoted

COUNTS = (1, 2, 4)  # cards at once
_MOST_PRICE = 1e5  # euros per hour
# Kaggle's sessions: cards in one, and hours of quota per hour; 30 of these per week.
KAGGLE = {"t4": (2, 1.0), "p100": (1, 1.0), "l4": (4, 2.0)}
KAGGLE_WEEK_H = 30
FITS = "fits"
Card = tuple[Accelerator, Calibration]
Prices = Mapping[tuple[str, int], float]  # euros per hour by name and number of cards
CellName = tuple[str, str, int]  # model, precision, context


@dataclass(frozen=True)
class Choice:
    """What does one cell of the query. `smallest` is None where nothing surely does it, `nearest` then comes nearest;
    `cheapest` is None without prices, and where no card with a price does it. `reason` says why there is no prediction.
    """

    cell: CellName
    smallest: Prediction | None
    cheapest: Prediction | None
    nearest: Prediction | None
    reason: str = ""

    @property
    def shown(self) -> list[tuple[Prediction, str]]:
        """Each prediction to show, and what it is."""
        if self.smallest and self.smallest is self.cheapest:
            return [(self.smallest, "smallest, cheapest")]
        pairs = [(self.smallest, "smallest"), (self.cheapest, "cheapest"), (self.nearest, "nearest")]
        return [(prediction, word) for prediction, word in pairs if prediction]


def prices_of(words: Iterable[str]) -> dict[tuple[str, int], float]:
    """Prices as users write them: "l4=0.35", or "2xt4=0.5" for both together. Raises UserError for what is none."""
    prices: dict[tuple[str, int], float] = {}
    for word in words:
        name, _, price_text = word.partition("=")
        try:
            price = float(price_text) if price_text.isascii() and "_" not in price_text else math.nan
        except ValueError:
            price = math.nan
        if not 0 < price <= _MOST_PRICE:
            raise UserError(f"--price {quoted(word)} is no price; write CARD=EUROS per hour, as in l4=0.35")
        card = accelerators.find(name)
        if (card.name, card.count) in prices:
            raise UserError(f"--price {quoted(word)}: {name} has a price already")
        prices[card.name, card.count] = price
    return prices


def check_prices(prices: Prices, cards: Sequence[Card]) -> None:
    """Raises UserError for a price of a card that is none of `cards`: it would change nothing."""
    for name, count in prices:
        if not any(card.name == name and card.count in (count, count * card.count) for card, _ in cards):
            priced = f"{count}x{name}" if count > 1 else name
            raise UserError(
                f"--price names {priced}, which is none of the cards that are looked at; name it in --gpu too"
            )


def euros_per_hour(card: Accelerator, prices: Prices) -> float | None:
    """What so many of the card cost per hour: by their own price, or by that of one; None without a price."""
    if (together := prices.get((card.name, card.count))) is not None:
        return together
    one = prices.get((card.name, 1))
    return one * card.count if one is not None else None


def quota_hours(prediction: Prediction, goal: Goal) -> float | None:
    """Hours of Kaggle's quota, by the middle of the hours; None where Kaggle has no such session."""
    card = prediction.accelerator
    cards, per_hour = KAGGLE.get(card.name, (0, 0.0))
    return prediction.hours(goal)[1] * per_hour if card.count <= cards else None


def candidates(named: Sequence[Card] = ()) -> list[Card]:
    """Every card of the table, or those `named`, in every number of COUNTS, the smallest first: by the memory of all
    together, then by their rate. A card that is named with a number has that one, and a CPU is one."""
    cards = named or [(card, calibration_files.for_card(card)) for card in accelerators.ACCELERATORS.values()]
    several = [
        (replace(card, count=count), calibration)
        for card, calibration in cards
        for count in (COUNTS if card.count == 1 and card.kind != CPU else (card.count,))
    ]
    return sorted(several, key=lambda pair: _size(pair[0]))


def _size(card: Accelerator) -> tuple[float, float, int]:
    fastest = max(forward for forward, _ in card.rates.values())
    return card.memory_bytes * card.count, fastest * card.count, card.count


def choose(
    cards: Sequence[Card],
    query_on: Callable[[Card], PredictQuery | None],
    goal: Goal,
    prices: Prices,
    pool: TracePool,
    on_done: OnDone = lambda done, total: None,
) -> list[Choice]:
    """A choice per cell of the query for `goal` that `query_on` makes for a candidate.

    It gives None where so many cards cannot share the recipe's step.

    Goes through `cards` in their order. One without a price is predicted only for cells that no smaller one does.
    Raises UserError as `predict_all` does.
    """
    fitting: dict[CellName, list[Prediction]] = {}
    others: dict[CellName, list[Prediction]] = {}
    reasons: dict[CellName, str] = {}
    for card, query in ((card, query_on(card)) for card in cards):
        if query is None:
            continue
        priced = euros_per_hour(card[0], prices) is not None
        for name, part in _parts(query, set() if priced else set(fitting)):
            for answer in predict_all(part, pool, on_done):
                # By the name that was asked for: "native" is another dtype on another card.
                cell = answer.spec.name, name, answer.context
                if isinstance(answer, Unpredictable):
                    reasons.setdefault(cell, answer.reason)
                else:
                    kept = fitting if answer.verdict(goal) == FITS else others
                    kept.setdefault(cell, []).append(answer)
    names = dict.fromkeys([*fitting, *others, *reasons])
    return [
        _choice(cell, fitting.get(cell, []), others.get(cell, []), prices, goal, reasons.get(cell, ""))
        for cell in names
    ]


def _parts(query: PredictQuery, done: set[CellName]) -> Iterable[tuple[str, PredictQuery]]:
    """The query without the cells that are `done`: by model and precision, with the name of that."""
    for spec in query.models:
        for precision in query.precisions:
            contexts = dict.fromkeys(min(context, spec.max_context) for context in query.contexts)
            if left := [n for n in contexts if (spec.name, precision.name, n) not in done]:
                yield precision.name, replace(query, models=[spec], precisions=[precision], contexts=left)


def _choice(
    cell: CellName,
    fitting: Sequence[Prediction],
    others: Sequence[Prediction],
    prices: Prices,
    goal: Goal,
    reason: str,
) -> Choice:
    smallest = min(fitting, key=lambda p: _size(p.accelerator), default=None)
    priced = [p for p in fitting if cost(p, goal, prices) is not None]
    cheapest = min(priced, key=lambda p: (cost(p, goal, prices) or 0.0, _size(p.accelerator)), default=None)
    nearest = None
    if not smallest and others:
        # What holds it for sure is nearest by its hours, else what lacks least memory.
        held = [p for p in others if p.fits_memory()]
        nearest = min(held, key=lambda p: p.hours(goal)[2]) if held else min(others, key=_memory_share)
    return Choice(cell, smallest, cheapest, nearest, "" if smallest or nearest else reason)


def cost(prediction: Prediction, goal: Goal, prices: Prices) -> float | None:
    """Euros for the whole goal, by the middle of the hours; None for a card without a price."""
    per_hour = euros_per_hour(prediction.accelerator, prices)
    return None if per_hour is None else per_hour * prediction.hours(goal)[1]


def _memory_share(prediction: Prediction) -> float:
    return prediction.peak_bytes * prediction.memory_factor / prediction.accelerator.memory_bytes


def shortfall(prediction: Prediction, goal: Goal) -> str:
    """By how much a prediction that does not surely fit misses the memory, or else the budget."""
    if not prediction.fits_memory():
        gib = 2**30
        needs, has = prediction.peak_bytes * prediction.memory_factor / gib, prediction.accelerator.memory_bytes / gib
        return f"it may need {rounded(needs)} GiB per card, {rounded(needs / has)} times the {rounded(has)} that it has"
    high, budget = prediction.hours(goal)[2], goal.budget_hours
    return f"it may take {rounded(high)} h, {fixed(100 * (high / budget - 1))} % over the budget of {budget:.7g} h"
