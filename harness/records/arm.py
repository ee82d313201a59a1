"""The specification and the result of a fine-tuning arm: frozen, JSON in and out; grids are stored as text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

from msgspec import Meta

from harness import limits
from harness.records.cell import TUNING_RULE, ModelSpec, Recipe, record_key
from harness.records.measurement import CROWDING, FAILURES, OK, Cores, Duration, Place, Size
from harness.records.store import Rows
from harness.records.stored import from_stored, to_stored
from harness.text import quoted

GridText = Annotated[str, Meta(max_length=1000)]
Share = Annotated[float, Meta(ge=0, le=1)]
# Per task and test input: the grids tried, at most two, first choice first. A grid is text, one line of digits per row
# (harness.arc.encode.rows), so that records need neither numpy nor ARC.
Attempts = dict[str, tuple[tuple[GridText, ...], ...]]
ATTEMPTS = 2  # that count, per test input
SHARED, TASK = "shared", "task"
SCOPES = (SHARED, TASK)  # one adapter for all tasks, or one per task
DROP, SHORTEN = "drop", "shorten"
GREEDY, SAMPLE, DFS = "greedy", "sample", "dfs"
DECODERS = (GREEDY, SAMPLE, DFS)  # the likeliest token, drawn ones, or all answers above a probability
VOTE, SCORE = "vote", "score"
SELECTIONS = (VOTE, SCORE)  # of the two attempts: by views that gave them, or by likelihood in all views
TOO_LONG = (DROP, SHORTEN)  # a prompt beyond the context is left out, or loses demonstrations


@dataclass(frozen=True)
class TuneSpec:
    """Everything that the arms of a fine-tune share. `tasks` are ids of tasks of the set `dataset`."""

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
    steps: Size
    context: limits.Context
    encoding: str
    views: limits.Views
    seed: int
    curve: bool = False  # evaluate during training too, after half of the steps, a quarter, ...
    scope: str = SHARED
    too_long: str = SHORTEN
    decode: str = GREEDY
    select: str = VOTE

    def key(self, arm: str, versions: dict[str, str], environment: Mapping[str, str] = MappingProxyType({})) -> str:
        """The key of one arm's result; another model, task set, recipe, library version, rule, or on a card another
        `environment` (an ArmResult's) gives another key."""
        # The baseline does not train, so settings of training do not change its key.
        payload = {**to_stored(self), "arm": arm, "steps": 0 if arm == "baseline" else self.steps}
        if arm == "baseline":
            del payload["scope"], payload["curve"], payload["recipe"]["learning_rate"]
        # Added later, so that keys of rows from before stay valid.
        for name, default in (("decode", GREEDY), ("select", VOTE)):
            if payload[name] == default:
                del payload[name]
        return record_key(payload, TUNING_RULE, versions, environment)

    @property
    def comparison_key(self) -> tuple:
        """What two results must have in common for their accuracies to be compared."""
        return self.dataset, self.tasks, self.views


@dataclass(frozen=True)
class Coverage:
    """How many test questions and leave-one-out examples fit the context unshortened, by the model's own tokenizer."""

    questions: Size
    questions_fit: Size
    examples: Size
    examples_fit: Size


@dataclass(frozen=True)
class TaskScore:
    """Scores of one task, 0 to 1, each a mean over its test inputs.

    `attempts` is the share of test inputs whose output is among the two attempts: the part of the task that counts on
    the public leaderboard. `views` is the accuracy of single views before the vote. `cells` and `shape` compare the
    first attempt with the truth; `answered` says whether there was one.
    """

    id: str
    attempts: Share
    views: Share
    cells: Share
    shape: Share
    answered: Share

    @property
    def solved(self) -> bool:
        return self.attempts == 1.0


@dataclass(frozen=True)
class CurvePoint:
    """After `steps` optimiser steps: answer loss in nats per token, and scores, 0 to 1, in the order of the tasks."""

    steps: limits.Steps
    loss: float | None  # None where no true output fits the context
    scores: tuple[Share, ...]


@dataclass(frozen=True)
class ArmResult:
    """One arm's row in accuracy.jsonl: raw losses, seconds and scores per task; means and intervals are derived.

    An arm that failed is a row too, with its status and reason.
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
    # Of every attempt: its share of the views (harness.records.solving.shares). Empty in rows from before.
    confidence: dict[str, tuple[tuple[Share, ...], ...]] = field(default_factory=dict)
    # Answer loss of each training step in nats per token; with one adapter per task, the mean over tasks.
    step_losses: tuple[float, ...] = ()
    # For each true test output that fits the context: (nats per token, its tokens).
    answer_losses: tuple[tuple[float, Size], ...] = ()
    # By task, in the spec's order: how many of `answer_losses` are its own. Empty in rows from before.
    answer_counts: tuple[Size, ...] = ()
    train_s: Duration = 0.0
    decode_s: Duration = 0.0
    score_s: Duration = 0.0  # of finding the candidates' likelihoods
    # On a CPU: cores that others took from its threads meanwhile, on average. None on a card and in rows from before.
    cores_taken: Cores | None = None
    used: Size = 0  # training examples
    too_long: Size = 0  # training examples that did not fit the context
    untrained: Size = 0  # with one adapter per task: tasks without a training example
    questions: Size = 0  # put to the model, in all views
    skipped: Size = 0  # questions that did not fit
    curve_points: tuple[CurvePoint, ...] = ()  # if the spec has a curve; the last step included
    adapted: str = ""  # modules with an adapter: "q_proj k_proj v_proj o_proj"
    notes: tuple[str, ...] = ()  # sentences on how it was trained: "memory ran out in step 7: going on with ..."
    # On a card: what its results depend on besides the libraries (harness.hardware.card_environment).
    environment: dict[str, str] = field(default_factory=dict)
    place: Place | None = None  # in a cluster

    @classmethod
    def of(cls, spec: TuneSpec, arm: str, versions: dict[str, str], **more: Any) -> "ArmResult":
        """A row under this version's rule, with its key; `more` are further fields."""
        key = spec.key(arm, versions, more.get("environment", {}))
        return cls(key=key, arm=arm, spec=spec, versions=versions, rule=TUNING_RULE, **more)

    @property
    def ok(self) -> bool:
        return self.status == OK

    @property
    def slowed(self) -> bool:
        """Whether others used its cores, so that its seconds are too long."""
        return (self.cores_taken or 0.0) > CROWDING

    @property
    def label(self) -> str:
        """The arm's name, with how it was decoded and selected where that is not greedy by vote."""
        ways = {self.spec.decode: GREEDY, self.spec.select: VOTE}
        return ", ".join([self.arm, *(way for way, usual in ways.items() if way != usual)])

    @property
    def steps(self) -> int:
        return len(self.step_losses)

    @property
    def solved(self) -> list[bool]:
        return [score.solved for score in self.scores]

    @property
    def by_task(self) -> list[float]:
        """Share of each task's test inputs that the two attempts solved, in the spec's order."""
        return [score.attempts for score in self.scores]

    def nats_by_task(self) -> dict[str, float]:
        """Nats per grid of each task, a mean over its test outputs; without tasks of which one was too long to read.

        Empty where the row does not say which loss is of which task.
        """
        # Rows without attempts were made by hand: one output per task.
        inputs = [len(self.attempts.get(name, ())) or 1 for name in self.spec.tasks]
        counts = self.answer_counts or inputs
        if sum(counts) != len(self.answer_losses) or len(counts) != len(inputs):
            return {}
        grids = iter([loss * tokens for loss, tokens in self.answer_losses])
        own = [list(islice(grids, count)) for count in counts]
        return {
            name: sum(nats) / len(nats)
            for name, nats, count in zip(self.spec.tasks, own, inputs, strict=True)
            if len(nats) == count
        }

    def mean(self, name: str) -> float:
        """The mean of the TaskScore field `name` over all tasks, including those without an answer."""
        return sum(getattr(score, name) for score in self.scores) / len(self.scores)

    @property
    def decode_s_per_task(self) -> float:
        return (self.decode_s + self.score_s) / len(self.scores)

    @property
    def token_loss(self) -> float | None:
        """Answer loss in nats per token over all true outputs that fit; None where none does."""
        return mean_loss(self.answer_losses)

    @property
    def grid_nll(self) -> float | None:
        """Mean negative log-likelihood of a whole output, in nats; comparable across tokenizers.

        A mean over tasks, as comparisons are: of those whose outputs were all read, else over the outputs that were.
        """
        nats = list(self.nats_by_task().values()) or [loss * tokens for loss, tokens in self.answer_losses]
        return sum(nats) / len(nats) if nats else None


def mean_loss(losses: Sequence[tuple[float, int]]) -> float | None:
    """The mean of (nats per token, tokens) over all tokens; None without any."""
    tokens = sum(count for _, count in losses)
    return sum(loss * count for loss, count in losses) / tokens if tokens else None


def to_json(row: ArmResult) -> dict[str, Any]:
    return {"kind": "arm", **to_stored(row)}


def from_json(raw: Any) -> ArmResult:
    """The result that `to_json` wrote. Raises ValueError where `raw` is not one."""
    row = from_stored(raw, ArmResult)
    if row.status != OK and row.status not in FAILURES:
        raise ValueError(f"unknown status {quoted(row.status)}")
    # What is derived takes one score per task, each time in the order of the spec.
    tasks = len(row.spec.tasks)
    if row.ok and (not tasks or [score.id for score in row.scores] != list(row.spec.tasks)):
        raise ValueError("an ok row without a score for each of its tasks")
    if any(len(point.scores) != tasks for point in row.curve_points):
        raise ValueError("a point of the curve without a score for each task")
    if any(len(grids) > ATTEMPTS for answers in row.attempts.values() for grids in answers):
        raise ValueError(f"more than {ATTEMPTS} attempts at a test input")
    return row


ROWS = Rows(
    "accuracy.jsonl",
    to_json,
    from_json,
    TUNING_RULE,
    lambda row: (row.spec.model.name, row.spec.precision, row.spec.dataset, row.spec.device_name, row.label),
)
