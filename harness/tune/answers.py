"""From a model and its questions to answers and attempts: decoded as the spec says, then chosen by vote or by score."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.arc.dataset import Answers, Questions, cannot_be_grid
from harness.arc.encode import ENCODINGS
from harness.arc.score import ATTEMPTS
from harness.arc.task import Grid
from harness.records.arm import GREEDY, SCORE, TuneSpec
from harness.tune import decode
from harness.tune.candidates import SEPARATOR, Decoding, candidates
from harness.tune.decode_batches import TokenLimit
from harness.tune.outcome import Choices
from harness.tune.scoring import log_likelihoods

Counts = dict[Grid, float]  # of a test input's candidates: votes, or log-likelihoods


def decoded(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: Sequence[int],
    spec: TuneSpec,
    *,
    limit: TokenLimit | None = None,
    on_texts: Callable[[dict[int, str]], None] = lambda texts: None,
) -> list[str]:
    """The text of every prompt, decoded by `spec.decode`; several candidates are joined by SEPARATOR, best first."""
    more: dict[str, Any] = {"limit": limit, "on_texts": on_texts}
    if spec.decode == GREEDY:
        return decode.greedy(model, tokenizer, prompts, max_new_tokens, hopeless=cannot_be_grid, **more)
    decoding = Decoding(method=spec.decode, encoding=spec.encoding, seed=spec.seed)
    return candidates(model, tokenizer, prompts, max_new_tokens, decoding, **more)


def chosen(
    model: Any, tokenizer: Any, questions: Questions, texts: Sequence[str], spec: TuneSpec
) -> tuple[Answers, Choices, float]:
    """The likeliest answer of every view, the attempts with their confidence, and the seconds of scoring.

    By vote a grid's confidence is its share of the votes, one for every view that gave it. By score it is its share
    of the likelihood: the softmax, over a test input's candidates, of log-likelihoods summed over all views.
    """
    split = [text.split(SEPARATOR) for text in texts] if spec.decode != GREEDY else [[text] for text in texts]
    answers = questions.answers([parts[0] for parts in split])
    votes: dict[str, list[Counts]] = {id: [{} for _ in inputs] for id, inputs in answers.items()}
    for id, i, grids in questions.candidates(split):
        for grid in grids:
            votes[id][i][grid] = votes[id][i].get(grid, 0) + 1
    if spec.select != SCORE:
        return answers, {id: [_best(counts, _share) for counts in inputs] for id, inputs in votes.items()}, 0.0
    start = time.perf_counter()
    scores = scored(model, tokenizer, questions, votes, spec.encoding)
    seconds = time.perf_counter() - start
    return answers, {id: [_best(counts, _softmax) for counts in inputs] for id, inputs in scores.items()}, seconds


def scored(
    model: Any, tokenizer: Any, questions: Questions, found: Mapping[str, Sequence[Counts]], encoding: str
) -> dict[str, list[Counts]]:
    """Of all grids in `found`, per task and test input: log-likelihoods in nats, summed over the views."""
    encode = ENCODINGS[encoding][0]

    def ids(grid: Grid) -> list[int]:
        return [*tokenizer(encode(grid), add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]

    places = [(id, i) for id, i, _ in questions.candidates([[]] * len(questions.prompts))]
    # A single candidate needs no score.
    asked = [n for n, (id, i) in enumerate(places) if len(found[id][i]) > 1]
    rows = [
        (questions.prompts[n], [ids(questions.in_view(n, grid)) for grid in found[places[n][0]][places[n][1]]])
        for n in asked
    ]
    totals: dict[str, list[Counts]] = {id: [dict.fromkeys(counts, 0.0) for counts in x] for id, x in found.items()}
    for number, values in zip(asked, log_likelihoods(model, rows), strict=True):
        id, i = places[number]
        for grid, value in zip(found[id][i], values, strict=True):
            totals[id][i][grid] += value
    return totals


def _best(counts: Counts, shares_of: Callable[[list[float]], list[float]]) -> list[tuple[Grid, float]]:
    """At most two grids, the highest count first, with their shares; on a tie the grid that was answered first."""
    shares = dict(zip(counts, shares_of(list(counts.values())), strict=True))
    return [(grid, shares[grid]) for grid in sorted(counts, key=lambda grid: -counts[grid])[:ATTEMPTS]]


def _share(counts: list[float]) -> list[float]:
    return [count / sum(counts) for count in counts]


def _softmax(scores: list[float]) -> list[float]:
    weights = [math.exp(score - max(scores)) for score in scores]
    return [weight / sum(weights) for weight in weights]
