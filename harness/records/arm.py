"""What test-time fine-tuning is asked for and what came of it: frozen, JSON in and out, no torch."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from harness.analysis.learning_curve import Checkpoint
from harness.arc.encode import from_rows, rows
from harness.arc.score import TaskScore
from harness.arc.sources import Grid
from harness.catalog.kernels import AUTO
from harness.records.cell import ModelSpec, Recipe
from harness.records.store import Rows

# By task: for each test input the grids tried, at most two, the first choice first.
Attempts = dict[str, tuple[tuple[Grid, ...], ...]]
SHARED, TASK = "shared", "task"
SCOPES = (SHARED, TASK)  # one adapter for all tasks, or one a task
DROP, SHORTEN = "drop", "shorten"
TOO_LONG = (DROP, SHORTEN)  # what becomes of a prompt beyond the context


@dataclass(frozen=True)
class Trial:
    """What is asked of every arm alike. `tasks` names the puzzles, of the set `source`."""

    model: ModelSpec
    weights: str
    precision: str
    compute_dtype: str
    device: str
    device_name: str
    recipe: Recipe
    source: str
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
        """Names one arm's result: another model, set, recipe or version of a library gives another one."""
        said = {**asdict(self), "arm": arm, "versions": versions, "steps": 0 if arm == "baseline" else self.steps}
        del said["device"], said["model"]["ttft"]
        if said["recipe"]["kernels"] == AUTO:  # what a later version lets a recipe say, at its default
            del said["recipe"]["kernels"]
        if arm == "baseline":
            del said["scope"], said["curve"], said["recipe"]["learning_rate"]  # of no effect without training
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def exam(self) -> tuple:
        """What two results must have in common for their accuracies to be compared."""
        return self.source, self.tasks, self.views


@dataclass(frozen=True)
class Coverage:
    """How many test questions and leave-one-out examples fit the context whole, by the model's own tokenizer."""

    questions: int
    questions_fit: int
    examples: int
    examples_fit: int


@dataclass(frozen=True)
class ArmResult:
    """One arm's row in the record: raw losses, seconds and scores by task; means and intervals are derived."""

    key: str
    arm: str
    trial: Trial
    versions: dict[str, str]
    commit: str | None
    started: str
    coverage: Coverage
    scores: tuple[TaskScore, ...]
    attempts: Attempts
    step_losses: tuple[float, ...]  # answer loss of each training step, nats a token; the mean over tasks if one each
    answer_losses: tuple[tuple[float, int], ...]  # of each true test output that fits: nats a token, and its tokens
    train_s: float
    decode_s: float
    used: int  # training examples
    too_long: int  # training examples that did not fit the context
    untrained: int  # tasks with an adapter of their own for which there was no example
    asked: int  # questions, in all views
    unasked: int  # questions that did not fit
    checkpoints: tuple[Checkpoint, ...] = ()  # of a trial with a curve, the end included

    @property
    def steps(self) -> int:
        return len(self.step_losses)

    @property
    def solved(self) -> list[bool]:
        return [score.solved for score in self.scores]

    @property
    def by_task(self) -> list[float]:
        """Share of each task's test inputs that two attempts answered, in the trial's order."""
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
    said = {"kind": "arm", **asdict(row)}
    said["attempts"] = {name: [[rows(g) for g in tried] for tried in each] for name, each in row.attempts.items()}
    return said


def from_json(said: dict[str, Any]) -> ArmResult:
    """The result that `to_json` wrote. Raises KeyError, TypeError or ValueError where `said` is none."""
    values = {f.name: said[f.name] for f in fields(ArmResult)}
    values["checkpoints"] = tuple(
        Checkpoint(c["steps"], c["loss"], tuple(map(float, c["scores"]))) for c in said["checkpoints"]
    )
    trial = said["trial"]
    model = ModelSpec(**{**trial["model"], "aliases": tuple(trial["model"].get("aliases", ()))})
    values["trial"] = Trial(
        **{**trial, "model": model, "recipe": Recipe(**trial["recipe"]), "tasks": tuple(trial["tasks"])}
    )
    values["coverage"] = Coverage(**said["coverage"])
    values["scores"] = tuple(TaskScore(**score) for score in said["scores"])
    values["attempts"] = {
        name: tuple(tuple(map(from_rows, tried)) for tried in each) for name, each in said["attempts"].items()
    }
    values["step_losses"] = tuple(map(float, said["step_losses"]))
    values["answer_losses"] = tuple((float(loss), int(count)) for loss, count in said["answer_losses"])
    return ArmResult(**values)


ROWS = Rows("accuracy.jsonl", to_json, from_json)
