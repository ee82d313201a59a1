"""A task that a run has answered: one row of solved.jsonl per task and attempt, JSON in and out."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from harness import limits
from harness.records.arm import ATTEMPTS, Attempts, GridText, Share
from harness.records.measurement import FAILURES, OK, Duration, Place, Size
from harness.records.store import Rows, read
from harness.records.stored import from_stored, to_stored
from harness.text import quoted

SOLVING_RULE = 1
# Per test input: the grids that the views answered, and how many views did.
Votes = tuple[tuple[tuple[GridText, Annotated[int, Meta(ge=1)]], ...], ...]
# Per test input: of these grids, in their order, the log-likelihood in nats, the mean over all views.
Scores = tuple[tuple[Annotated[float, Meta(le=0, ge=-1e9)], ...], ...]


@dataclass(frozen=True, kw_only=True)
class SolvedTask:
    """One attempt at one task: what it answered, and where its seconds went.

    `run` is the key of the run, `key` that of the row; rows of one `setting` (model, precision, recipe, device: all but
    tasks, steps and views) take seconds that can be compared. `status` is not "ok" where the worker died or ran out of
    memory; the votes that it had given until then stay. `cut`: its time was over before all was done.
    """

    key: str
    run: str
    setting: str
    task: str
    attempt: Annotated[int, Meta(ge=1, le=10**6)]
    device: str
    started: str
    status: str = OK
    reason: str = ""
    rule: int = SOLVING_RULE
    votes: Votes = ()
    right: tuple[bool, ...] = ()  # where it is known: whether one of two attempts at a test input is
    scores: Scores = ()  # nothing for a test input that was chosen by vote
    views: limits.NoTasks = 0  # questions per test input
    steps: Size = 0  # trained
    train_s: Duration = 0.0
    decode_s: Duration = 0.0
    score_s: Duration = 0.0
    train_tokens: Size = 0
    question_tokens: Size = 0
    answer_tokens: Size = 0
    nominal_train_s: Duration = 0.0  # predicted, before any measured factor
    nominal_answer_s: Duration = 0.0
    expected_s: Duration = 0.0  # of both, by all that was measured before it began
    cap_s: Duration = 0.0
    load_s: Duration = 0.0  # of its worker, from the start of the process until it could begin
    cut: bool = False
    place: Place | None = None  # in a cluster
    work: str = ""  # the key of what is answered and how, whatever the device; "" in rows from before
    device_name: str = ""  # the card's

    @property
    def answer_s(self) -> float:
        return self.decode_s + self.score_s

    @property
    def seconds(self) -> float:
        return self.train_s + self.answer_s

    @property
    def ok(self) -> bool:
        return self.status == OK


def key_of(run: str, task: str, attempt: int) -> str:
    return f"{run}/{task}/{attempt}"


def shares(counts: Sequence[int], scores: Sequence[float], views: int) -> list[float]:
    """Of the candidates of one test input, the share of its `views` that each one has; the rest is unanswered.

    The views that answered are shared by votes (`counts`, the views that gave a candidate) or, where there are
    `scores` (log-likelihoods in nats, the mean over the views), by their softmax. It is the mean and not the sum, for
    views of one task are no independent evidence.
    """
    if not counts:
        return []
    answered = sum(counts) / max(views, sum(counts))
    weights = [math.exp(score - max(scores)) for score in scores] if scores else counts
    return [answered * weight / sum(weights) for weight in weights]


def joined(rows: Iterable[SolvedTask]) -> tuple[tuple[tuple[str, float], ...], ...]:
    """Per test input of one task, its candidates with their shares of the views of all attempts, the highest first.

    Every attempt counts by its views, so that one by votes and one by scores can be joined: an average of what both
    believe (a linear opinion pool). On a tie the candidate that came first is first.
    """
    rows = list(rows)
    views = sum(row.views for row in rows)
    totals: list[dict[str, float]] = [{} for _ in range(max((len(row.votes) for row in rows), default=0))]
    for row in rows:
        for i, votes in enumerate(row.votes):
            own = shares([count for _, count in votes], row.scores[i] if row.scores else (), row.views)
            for (grid, _), share in zip(votes, own, strict=True):
                totals[i][grid] = totals[i].get(grid, 0.0) + share * row.views / max(1, views)
    # Rounded, so that a tie is one whatever the order of the sums.
    return tuple(tuple(sorted(total.items(), key=lambda item: -round(item[1], 12))) for total in totals)


def attempts_of(rows: Iterable[SolvedTask]) -> tuple[tuple[str, ...], ...]:
    """Per test input of one task, the two grids with the highest shares."""
    return tuple(tuple(grid for grid, _ in candidates[:ATTEMPTS]) for candidates in joined(rows))


def all_attempts(rows: Iterable[SolvedTask]) -> Attempts:
    """`attempts_of` every task among `rows`."""
    by_task: dict[str, list[SolvedTask]] = {}
    for row in rows:
        by_task.setdefault(row.task, []).append(row)
    return {task: attempts_of(own) for task, own in by_task.items()}


def confidence(rows: Iterable[SolvedTask]) -> Share:
    """The share of a task's first answer, of its least sure test input; 0 without any answer."""
    return min(1.0, min((own[0][1] if own else 0.0 for own in joined(rows)), default=0.0))


def newest_run(folder: Path) -> list[SolvedTask]:
    """The rows of the run that was at work last, of all its shards; empty without a record of runs."""
    return parted(folder)[0]


def parted(folder: Path) -> tuple[list[SolvedTask], list[SolvedTask]]:
    """The rows of the newest run, its shards on other devices among them, and the rows of other runs."""
    path = folder / ROWS.name
    rows = read(path, ROWS)[0] if path.exists() else []
    newest = max(rows, key=lambda row: row.started, default=None)
    own = [row for row in rows if newest and (row.run == newest.run or (row.work and row.work == newest.work))]
    keys = {row.key for row in own}
    return own, [row for row in rows if row.key not in keys]


def to_json(row: SolvedTask) -> dict[str, Any]:
    return {"kind": "solved", **to_stored(row)}


def from_json(raw: Any) -> SolvedTask:
    """The row that `to_json` wrote. Raises ValueError where `raw` is not one."""
    row = from_stored(raw, SolvedTask)
    if row.status != OK and row.status not in FAILURES:
        raise ValueError(f"unknown status {quoted(row.status)}")
    if row.scores and len(row.scores) != len(row.votes):
        raise ValueError("scores of other test inputs than its votes are of")
    if any(own and len(own) != len(votes) for own, votes in zip(row.scores, row.votes, strict=False)):
        raise ValueError("scores of other grids than its votes are of")
    if row.key != key_of(row.run, row.task, row.attempt):
        raise ValueError("a key that is not the row's")
    return row


ROWS = Rows("solved.jsonl", to_json, from_json, SOLVING_RULE)
