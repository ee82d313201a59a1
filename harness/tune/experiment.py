"""One model through the arms, at equal steps on the same tasks: what `harness ttft` runs."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from harness.arc.score import TaskScore
from harness.forecast.estimate import Checkpoint
from harness.records import ModelSpec, Recipe


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

    def key(self, arm: str, versions: dict[str, str]) -> str:
        """Names one arm's result: another model, set, recipe or version of a library gives another one."""
        said = {**asdict(self), "arm": arm, "versions": versions, "steps": 0 if arm == "baseline" else self.steps}
        del said["device"]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class ArmResult:
    """One arm's row in the record: raw losses, seconds and scores by task; means and intervals are derived."""

    key: str
    arm: str
    trial: Trial
    versions: dict[str, str]
    commit: str | None
    started: str
    scores: tuple[TaskScore, ...]
    step_losses: tuple[float, ...]  # answer loss of each training step, nats a token
    answer_losses: tuple[tuple[float, int], ...]  # of each true test output that fits: nats a token, and its tokens
    train_s: float
    decode_s: float
    used: int  # training examples
    too_long: int  # training examples that did not fit the context
    asked: int  # questions, in all views
    unasked: int  # questions that did not fit
    checkpoints: tuple[Checkpoint, ...] = ()  # of a trial with a curve, the end included

    @property
    def steps(self) -> int:
        return len(self.step_losses)

    @property
    def solved(self) -> list[bool]:
        return [score.solved for score in self.scores]

    def mean(self, name: str) -> float:
        """The mean of a TaskScore's field over all tasks, those without an answer included."""
        return sum(getattr(score, name) for score in self.scores) / len(self.scores)

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
    return {"kind": "arm", **asdict(row)}


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
    values["scores"] = tuple(TaskScore(**score) for score in said["scores"])
    values["step_losses"] = tuple(map(float, said["step_losses"]))
    values["answer_losses"] = tuple((float(loss), int(count)) for loss, count in said["answer_losses"])
    return ArmResult(**values)


def run(
    trial: Trial,
    puzzles: Sequence[Any],
    solutions: dict[str, Any],
    arms: Sequence[Any],
    store: Any,
    note: Callable[[str], None],
    on_step: Callable[[str, int, float], None],
    fresh: bool = False,
) -> list[ArmResult]:
    """The results of `arms` in order, from the record where they are there already.

    The model is loaded once, for the first arm that must be run; every arm starts from the same adapter. Raises
    UserError where the model has no tokenizer or no example fits.
    """
    from datetime import UTC, datetime

    from harness.arc.score import score
    from harness.profile.provenance import commit, versions

    installed, results, ready = versions(), [], None
    known = store.rows()
    truths = {name: solutions[name] for name in trial.tasks}
    for arm in arms:
        key = trial.key(arm.name, installed)
        if key in known and not fresh:
            note(f"{arm.name}: from the record")
            results.append(known[key])
            continue
        if ready is None:
            note(f"loading {trial.model.name}")
            ready = _ready(trial)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        tuned, predicted, losses, checkpoints = _one(trial, arm, puzzles, solutions, ready, on_step)
        row = ArmResult(
            key=key,
            arm=arm.name,
            trial=trial,
            versions=installed,
            commit=commit(),
            started=started,
            scores=tuple(score(predicted.answers, truths)),
            step_losses=tuple(tuned.losses),
            answer_losses=tuple(losses),
            train_s=tuned.seconds,
            decode_s=predicted.seconds,
            used=tuned.used,
            too_long=tuned.too_long,
            asked=predicted.asked,
            unasked=predicted.unasked,
            checkpoints=tuple(checkpoints),
        )
        store.add(row)
        solved, spent = sum(row.solved), f"{row.train_s:.0f} s training, {row.decode_s:.0f} s decoding"
        note(f"{arm.name}: {solved} of {len(row.scores)} tasks, {spent}")
        results.append(row)
    return results


def _ready(trial: Trial) -> tuple[Any, Any, Any]:
    """The model with its adapter, the adapter's first values, and the tokenizer."""
    import torch

    from harness.catalog.precisions import find
    from harness.errors import UserError
    from harness.train import model as models
    from harness.train.libraries import Unsupported
    from harness.tune.finetune import Adapter

    try:
        tokenizer = models.load_tokenizer(trial.weights)
        loaded = models.load(
            trial.model,
            find(trial.precision),
            trial.compute_dtype,
            trial.recipe,
            trial.weights,
            torch.device(trial.device),
            trial.seed,
        )
    except Unsupported as problem:
        raise UserError(f"{trial.model.name}: {problem}") from None
    return loaded.model, Adapter(loaded.model), tokenizer


def halving(steps: int) -> list[int]:
    """`steps`, half of it, a quarter, ... from small to large: at most six, the first at least one."""
    return sorted({steps >> i for i in range(6)} - {0})


def _one(trial: Trial, arm, puzzles, solutions, ready, on_step):
    from harness.arc.score import score
    from harness.tune import finetune, predict

    model, adapter, tokenizer = ready
    answerer = predict.greedy(model, tokenizer)
    truths = {name: solutions[name] for name in trial.tasks}
    checkpoints = []

    def evaluate(step: int):
        asked = predict.predict(puzzles, tokenizer, answerer, trial.views, trial.encoding, trial.context, trial.seed)
        losses = predict.losses(model, tokenizer, puzzles, solutions, trial.encoding, trial.context)
        scores = tuple(each.attempts for each in score(asked.answers, truths))
        checkpoints.append(Checkpoint(step, mean_loss(losses), scores))
        return asked, losses

    def stepped(step: int, loss: float) -> None:
        on_step(arm.name, step, loss)
        if trial.curve and step in halving(trial.steps)[:-1]:
            evaluate(step)

    adapter.reset()
    tuned = finetune.tune(
        model,
        tokenizer,
        puzzles,
        arm,
        trial.recipe,
        trial.compute_dtype,
        trial.steps,
        trial.encoding,
        trial.context,
        trial.seed,
        stepped,
    )
    predicted, losses = evaluate(len(tuned.losses))
    return tuned, predicted, losses, checkpoints if trial.curve else []
