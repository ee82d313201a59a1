"""A task that a run has answered: one row of solved.jsonl per task and attempt, JSON in and out."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta

from harness import limits
from harness.records.arm import ATTEMPTS, Attempts, GridText, Share
from harness.records.measurement import FAILURES, OK, Duration, Size
from harness.records.store import Rows
from harness.records.stored import from_stored, to_stored
from harness.text import quoted

SOLVING_RULE = 1
# Per test input: the grids that the views answered, and how many views did.
Votes = tuple[tuple[tuple[GridText, Annotated[int, Meta(ge=1)]], ...], ...]


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
    views: limits.NoTasks = 0  # questions per test input
    steps: Size = 0  # trained
    train_s: Duration = 0.0
    decode_s: Duration = 0.0
    train_tokens: Size = 0
    question_tokens: Size = 0
    answer_tokens: Size = 0
    nominal_train_s: Duration = 0.0  # predicted, before any measured factor
    nominal_answer_s: Duration = 0.0
    expected_s: Duration = 0.0  # of both, by all that was measured before it began
    cap_s: Duration = 0.0
    load_s: Duration = 0.0  # of its worker, from the start of the process until it could begin
    cut: bool = False

    @property
    def seconds(self) -> float:
        return self.train_s + self.decode_s

    @property
    def ok(self) -> bool:
        return self.status == OK


def key_of(run: str, task: str, attempt: int) -> str:
    return f"{run}/{task}/{attempt}"


def joined_votes(rows: Iterable[SolvedTask]) -> Votes:
    """The votes of several attempts at one task together: per test input, the grid with most votes first."""
    counts: list[dict[str, int]] = []
    for row in rows:
        counts += [{} for _ in range(len(row.votes) - len(counts))]
        for total, votes in zip(counts, row.votes, strict=False):
            for grid, number in votes:
                total[grid] = total.get(grid, 0) + number
    return tuple(tuple(sorted(total.items(), key=lambda item: -item[1])) for total in counts)


def attempts_of(rows: Iterable[SolvedTask]) -> tuple[tuple[str, ...], ...]:
    """Per test input of one task, the two grids with most votes."""
    return tuple(tuple(grid for grid, _ in votes[:ATTEMPTS]) for votes in joined_votes(rows))


def all_attempts(rows: Iterable[SolvedTask]) -> Attempts:
    """`attempts_of` every task among `rows`."""
    by_task: dict[str, list[SolvedTask]] = {}
    for row in rows:
        by_task.setdefault(row.task, []).append(row)
    return {task: attempts_of(own) for task, own in by_task.items()}


def confidence(rows: Iterable[SolvedTask]) -> Share:
    """The share of the views that gave a task's first answer, of its least sure test input; 0 without any answer."""
    rows = list(rows)
    asked = sum(row.views for row in rows)
    votes = joined_votes(rows)
    if not asked or not votes:
        return 0.0
    return min(1.0, min(own[0][1] if own else 0 for own in votes) / asked)


def to_json(row: SolvedTask) -> dict[str, Any]:
    return {"kind": "solved", **to_stored(row)}


def from_json(raw: Any) -> SolvedTask:
    """The row that `to_json` wrote. Raises ValueError where `raw` is not one."""
    row = from_stored(raw, SolvedTask)
    if row.status != OK and row.status not in FAILURES:
        raise ValueError(f"unknown status {quoted(row.status)}")
    if row.key != key_of(row.run, row.task, row.attempt):
        raise ValueError("a key that is not the row's")
    return row


ROWS = Rows("solved.jsonl", to_json, from_json, SOLVING_RULE)
