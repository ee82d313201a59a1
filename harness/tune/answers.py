"""From a model and its questions to answers and attempts: decoded as the spec says, then chosen by vote or by score."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from harness.arc.dataset import Answers, Questions, cannot_be_grid
from harness.arc.encode import ENCODINGS
from harness.arc.score import ATTEMPTS
from harness.arc.task import Grid
from harness.records.arm import GREEDY, SCORE, TuneSpec
from harness.records.solving import shares
from harness.tune import decode
from harness.tune.candidates import ALONE, SEPARATOR, Decoding, Watch, candidates
from harness.tune.decode_batches import TokenLimit
from harness.tune.outcome import Choices
from harness.tune.scoring import log_likelihoods

Counts = dict[Grid, int]  # of a test input's candidates: views that gave them
Scores = dict[Grid, float]  # and their log-likelihoods in nats, the mean over all views


class _Stopped(Exception):
    """Decoding was stopped."""


def decoded(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: Sequence[int],
    spec: TuneSpec,
    *,
    limit: TokenLimit | None = None,
    watch: Watch = ALONE,
) -> list[str]:
    """The text of every prompt, decoded by `spec.decode`; several candidates are joined by SEPARATOR, best first."""
    texts: dict[int, str] = {}

    def keep(new: dict[int, str]) -> None:
        texts.update(new)
        watch.on_texts(new)

    if spec.decode != GREEDY:
        decoding = Decoding(method=spec.decode, encoding=spec.encoding, seed=spec.seed)
        return candidates(model, tokenizer, prompts, max_new_tokens, decoding, limit=limit, watch=watch)

    def hopeless(text: str) -> bool:
        if watch.stop():
            raise _Stopped
        return cannot_be_grid(text)

    with suppress(_Stopped):
        decode.greedy(model, tokenizer, prompts, max_new_tokens, hopeless=hopeless, limit=limit, on_texts=keep)
    return [texts.get(i, "") for i in range(len(prompts))]


def split(texts: Sequence[str], spec: TuneSpec) -> list[list[str]]:
    """The candidates in each of the texts that `decoded` gave, best first."""
    return [text.split(SEPARATOR) for text in texts] if spec.decode != GREEDY else [[text] for text in texts]


def votes_of(questions: Questions, answers: Sequence[Sequence[str]]) -> dict[str, list[Counts]]:
    """Per task and test input, the grids among the `answers` to its questions, with the number of views that gave them:
    the most first, and on a tie what was answered first."""
    blank = questions.answers([""] * len(questions.prompts))
    votes: dict[str, list[Counts]] = {id: [{} for _ in inputs] for id, inputs in blank.items()}
    for id, i, grids in questions.candidates(answers):
        for grid in grids:
            votes[id][i][grid] = votes[id][i].get(grid, 0) + 1
    return {id: [dict(sorted(x.items(), key=lambda item: -item[1])) for x in inputs] for id, inputs in votes.items()}


def chosen(
    model: Any,
    tokenizer: Any,
    questions: Questions,
    texts: Sequence[str],
    spec: TuneSpec,
    *,
    limit: TokenLimit | None = None,
) -> tuple[Answers, Choices, float]:
    """The likeliest answer of every view, the attempts with their confidence, and the seconds of scoring.

    The confidence is harness.records.solving.shares'.
    """
    candidates_of = split(texts, spec)
    answers = questions.answers([parts[0] for parts in candidates_of])
    votes, scores = votes_of(questions, candidates_of), {}
    start = time.perf_counter()
    if spec.select == SCORE:
        scores = scored(model, tokenizer, questions, votes, spec.encoding, limit=limit)
    seconds = time.perf_counter() - start if scores else 0.0
    choices = {
        id: [_best(counts, scores[id][i] if scores else {}, spec.views) for i, counts in enumerate(inputs)]
        for id, inputs in votes.items()
    }
    return answers, choices, seconds


def scored(
    model: Any,
    tokenizer: Any,
    questions: Questions,
    votes: Mapping[str, Sequence[Mapping[Grid, int]]],
    encoding: str,
    *,
    limit: TokenLimit | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, list[Scores]]:
    """Of all grids in `votes`, per task and test input: log-likelihoods in nats, the mean over the views.

    A single candidate needs none, and a test input that `stop`, once true, left without those of all its views has
    none: sums over some views would say less than the votes of all. Nor has one with a mean that is not finite.
    """
    encode = ENCODINGS[encoding][0]

    def ids(grid: Grid) -> list[int]:
        return [*tokenizer(encode(grid), add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]

    # One test input after the other, so that as many as possible are whole when it is stopped.
    places = [(id, i) for id, i, _ in questions.candidates([[]] * len(questions.prompts))]
    order = sorted((place, n) for n, place in enumerate(places) if len(votes[place[0]][place[1]]) > 1)
    rows = [(questions.prompts[n], [ids(questions.in_view(n, grid)) for grid in votes[id][i]]) for (id, i), n in order]
    by_view: dict[tuple[str, int], list[list[float] | None]] = {}
    for (place, _), values in zip(order, log_likelihoods(model, rows, limit=limit, stop=stop), strict=True):
        by_view.setdefault(place, []).append(values)

    def means(id: str, i: int) -> Scores:
        views = [values for values in by_view.get((id, i), ()) if values is not None]
        if not views or len(views) < len(by_view[id, i]):
            return {}
        sums = [sum(values) for values in zip(*views, strict=True)]
        # A model that gives NaN or no chance at all says nothing about which is likelier.
        if not all(map(math.isfinite, sums)):
            return {}
        return {grid: min(0.0, total / len(views)) for grid, total in zip(votes[id][i], sums, strict=True)}

    return {id: [means(id, i) for i in range(len(inputs))] for id, inputs in votes.items()}


def _best(counts: Counts, scores: Scores, views: int) -> list[tuple[Grid, float]]:
    """At most two grids, the highest first, with their shares; on a tie the grid with more votes, or answered first."""
    own = shares(list(counts.values()), [scores[grid] for grid in counts] if scores else [], views)
    by_grid = dict(zip(counts, own, strict=True))
    ranked = sorted(counts, key=lambda grid: -(scores or counts)[grid])
    return [(grid, by_grid[grid]) for grid in ranked[:ATTEMPTS]]
