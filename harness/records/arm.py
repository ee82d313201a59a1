"""What test-time fine-tuning is asked for and what came of it: frozen, JSON in and out; grids are text here."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from harness.records.cell import TUNING_RULE, ModelSpec, Recipe, record_key
from harness.records.measurement import OK
from harness.records.store import Rows
from harness.records.stored import from_stored, to_stored

# By task: for each test input the grids tried, at most two, the first choice first; each a text of digits, a line per
# row (harness.arc.encode.rows).
Attempts = dict[str, tuple[tuple[str, ...], ...]]
SHARED, TASK = "shared", "task"
SCOPES = (SHARED, TASK)  # one adapter for all tasks, or one a task
DROP, SHORTEN = "drop", "shorten"
TOO_LONG = (DROP, SHORTEN)  # what becomes of a prompt beyond the context


@dataclass(frozen=True)
class TuneSpec:
    """What every arm of a fine-tune has in common. `tasks` are ids of the tasks, of the set `dataset`."""

    STORED: ClassVar = {"dataset": "source"}

    model: ModelSpec
    weights: str
    precision: str
    compute_dtype: str
    device: str
    device_name: str
    recipe: Recipe
    dataset: str
    tasks: tuple[str, ...]
    steps: int
    context: int
    encoding: str
    views: int
    seed: int
    curve: bool = False  # evaluate on the way too, at halving steps
    scope: str = SHARED
    too_long: str = SHORTEN

    def key(self, arm: str, versions: dict[str, str]) -> str:
        """Names one arm's result: another model, set, recipe, version of a library or rule gives another one."""
        payload = {**to_stored(self), "arm": arm, "steps": 0 if arm == "baseline" else self.steps}
        if arm == "baseline":  # of no effect without training
            del payload["scope"], payload["curve"], payload["recipe"]["learning_rate"]
        return record_key(payload, TUNING_RULE, versions)

    @property
    def comparison_key(self) -> tuple:
        """What two results must have in common for their accuracies to be compared."""
        return self.dataset, self.tasks, self.views


@dataclass(frozen=True)
class Coverage:
    """How many test questions and leave-one-out examples fit the context whole, by the model's own tokenizer."""

    questions: int
    questions_fit: int
    examples: int
    examples_fit: int


@dataclass(frozen=True)
class TaskScore:
    """One task, each number the mean over its test inputs: 0 to 1.

    `solved` is 1 only where every test input has its output among the two attempts, as on the public leaderboard a
    task is counted in parts: `attempts` is that part. `views` is the mean accuracy of single views.
    """

    id: str
    attempts: float
    views: float
    cells: float
    shape: float
    answered: float

    @property
    def solved(self) -> bool:
        return self.attempts == 1.0


@dataclass(frozen=True)
class CurvePoint:
    """After `steps` optimiser steps: the answer loss in nats a token, and each task's score, 0 to 1, in one order."""

    steps: int
    loss: float | None  # None where no true output fits the context
    scores: tuple[float, ...]


@dataclass(frozen=True)
class ArmResult:
    """One arm's row in the record: raw losses, seconds and scores by task; means and intervals are derived.

    A failure is a row too, with its status and reason.
    """

    STORED: ClassVar = {"spec": "trial", "questions": "asked", "skipped": "unasked", "curve_points": "checkpoints"}

    key: str
    arm: str
    spec: TuneSpec
    versions: dict[str, str]
    commit: str | None
    started: str
    status: str = OK  # or oom, killed, crashed: then all below is empty
    reason: str = ""
    rule: int = 1  # TUNING_RULE when it was measured; rows without one are of the first
    coverage: Coverage = Coverage(0, 0, 0, 0)
    scores: tuple[TaskScore, ...] = ()
    attempts: Attempts = field(default_factory=dict)
    step_losses: tuple[
        float, ...
    ] = ()  # answer loss of each training step, nats per token; the mean over tasks if one each
    answer_losses: tuple[tuple[float, int], ...] = ()  # of each true test output that fits: nats per token, its tokens
    train_s: float = 0.0
    decode_s: float = 0.0
    used: int = 0  # training examples
    too_long: int = 0  # training examples that did not fit the context
    untrained: int = 0  # tasks with an adapter of their own for which there was no example
    questions: int = 0  # put to the model, in all views
    skipped: int = 0  # questions that did not fit
    curve_points: tuple[CurvePoint, ...] = ()  # of a spec with a curve, the end included

    @classmethod
    def of(cls, spec: TuneSpec, arm: str, versions: dict[str, str], **more: Any) -> "ArmResult":
        """A row of this version's rule, under its key; `more` are further fields."""
        return cls(key=spec.key(arm, versions), arm=arm, spec=spec, versions=versions, rule=TUNING_RULE, **more)

    @property
    def ok(self) -> bool:
        return self.status == OK

    @property
    def steps(self) -> int:
        return len(self.step_losses)

    @property
    def solved(self) -> list[bool]:
        return [score.solved for score in self.scores]

    @property
    def by_task(self) -> list[float]:
        """Share of each task's test inputs that two attempts answered, in the spec's order."""
        return [score.attempts for score in self.scores]

    def mean(self, name: str) -> float:
        """The mean of a TaskScore's field over all tasks, those without an answer included."""
        return sum(getattr(score, name) for score in self.scores) / len(self.scores)

    @property
    def decode_s_per_task(self) -> float:
        return self.decode_s / len(self.scores)

    @property
    def token_loss(self) -> float | None:
        """Answer loss in nats a token over all true outputs that fit; None where none does."""
        return mean_loss(self.answer_losses)

    @property
    def grid_nll(self) -> float | None:
        """Mean negative log-likelihood of a whole output, in nats: to be compared across tokenizers too."""
        return sum(n * c for n, c in self.answer_losses) / len(self.answer_losses) if self.answer_losses else None


def mean_loss(losses: Sequence[tuple[float, int]]) -> float | None:
    """Nats a token over answers of (nats a token, tokens); None without any."""
    tokens = sum(count for _, count in losses)
    return sum(loss * count for loss, count in losses) / tokens if tokens else None


def to_json(row: ArmResult) -> dict[str, Any]:
    return {"kind": "arm", **to_stored(row)}


def from_json(raw: Any) -> ArmResult:
    """The result that `to_json` wrote. Raises ValueError where `raw` is none."""
    return from_stored(raw, ArmResult)


ROWS = Rows("accuracy.jsonl", to_json, from_json, lambda row: row.rule == TUNING_RULE)
