"""The model under test with its tasks, and what one adapter makes of them."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from statistics import fmean
from typing import Any

from harness.arc.arms import Arm
from harness.arc.coverage import lengths
from harness.arc.prompt import build
from harness.arc.task import Grid, Solutions, Task
from harness.errors import UserError
from harness.predict.prediction import Prediction
from harness.records.arm import SHARED, SHORTEN, Coverage, TuneSpec
from harness.records.cell import Cell
from harness.tune.checkpoint import Checkpointer

_FITTED_ON = 64  # examples, of which the fullest pack is tried

Answers = dict[str, list[list[Grid | None]]]  # by task: for each test input what each view answered


@dataclass
class Outcome:
    """What one adapter gave on its tasks; raw, so that the outcomes of single tasks can be joined."""

    answers: Answers = field(default_factory=dict)
    losses: list[tuple[float, int]] = field(default_factory=list)
    step_losses: list[float] = field(default_factory=list)
    # steps -> answers and losses at that point
    curve: list[tuple[int, Answers, list[tuple[float, int]]]] = field(default_factory=list)
    train_s: float = 0.0
    decode_s: float = 0.0
    used: int = 0
    too_long: int = 0
    untrained: int = 0
    asked: int = 0
    skipped: int = 0


def joined(outcomes: Sequence[Outcome]) -> Outcome:
    """One adapter a task as one outcome: counts and seconds added up, step losses averaged over trained tasks."""
    total = Outcome()
    for each in outcomes:
        total.answers |= each.answers
        total.losses += each.losses
        for name in ("train_s", "decode_s", "used", "too_long", "untrained", "asked", "skipped"):
            setattr(total, name, getattr(total, name) + getattr(each, name))
    trained = [each.step_losses for each in outcomes if each.step_losses]
    total.step_losses = [fmean(step) for step in zip(*trained, strict=True)]
    steps = sorted({step for each in outcomes for step, *_ in each.curve})
    for step in steps:
        at: tuple[Answers, list] = ({}, [])
        for each in outcomes:
            # A task that could not be trained stays at its answers throughout.
            answers, losses = next(((a, n) for s, a, n in each.curve if s == step), (each.answers, each.losses))
            at[0].update(answers)
            at[1].extend(losses)
        total.curve.append((step, *at))
    return total


def eval_steps(steps: int) -> list[int]:
    """`steps`, half of it, a quarter, ... from small to large: at most five, the first at least one."""
    return sorted({steps >> i for i in range(5)} - {0})


class ArmRunner:
    """The loaded model with its adapter's first values and its tokenizer, and the tasks it is asked.

    Raises UserError where the model cannot be loaded, has no tokenizer, or no question fits the context.
    """

    def __init__(
        self,
        trial: TuneSpec,
        tasks: Sequence[Task],
        truths: Solutions,
        on_answers: Callable[[int, int], None] = lambda done, total: None,
    ):
        import torch

        from harness.catalog.precisions import find
        from harness.errors import Unsupported
        from harness.train import model as models
        from harness.tune.finetune import Adapter

        self.trial, self.tasks, self.truths, self.on_answers = trial, tasks, truths, on_answers
        try:
            self.tokenizer = models.tokenizer_for(trial.weights, trial.recipe)
            self.coverage = _coverage(trial, tasks, self.tokenizer)
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
        self.model, self.adapter = loaded.model, Adapter(loaded.model)
        self.kernels, self.notes = loaded.kernels, loaded.notes
        self.tokens_at_once: int | None = None

    def fit(self, arm: Arm, foresee: Callable[[Cell], Prediction | None], note: Callable[[str], None]) -> None:
        """Finds how `arm` trains fastest inside the memory; every arm then trains so.

        Raises torch.OutOfMemoryError where nothing that can be tried fits.
        """
        from harness.tune import autotune, finetune

        trial = self.trial
        how = self.tokenizer, trial.encoding, trial.context, trial.too_long, finetune.Tuned()
        sequences = islice(finetune.sequences_of(arm.stream(self.tasks, trial.seed), *how), _FITTED_ON)
        found = autotune.fastest(self.model, list(sequences), autotune.variants(trial, foresee), trial, note)
        self.tokens_at_once = found.tokens

    def run(self, arm: Arm, keeper: Checkpointer, on_step: Callable[[str, int, int, float], None]) -> Outcome:
        """The outcome of one arm: with one adapter for all tasks, or with one for each, whose outcomes are joined."""
        trial = self.trial
        groups = [self.tasks] if trial.scope == SHARED else [[task] for task in self.tasks]
        begun = keeper.load()
        done = [Outcome(**each) for each in begun.get("done", ())]
        current = begun.get("current")

        def state() -> dict:
            return {"done": [asdict(each) for each in done]}

        def stepped(step: int, loss: float, tuning: Callable[[], dict], curve: list) -> None:
            on_step(arm.name, len(done) * trial.steps + step, len(groups) * trial.steps, loss)
            # Log-spaced points are kept (not for every task anew); others only when some time has passed.
            now = trial.scope == SHARED and step in eval_steps(trial.steps)[:-1]
            keeper.keep(lambda: {**state(), "current": {**tuning(), "curve": curve}}, now)

        for group in groups[len(done) :]:
            done.append(self._one(arm, group, stepped, current))
            current = None
            if trial.scope != SHARED:
                keeper.keep(state)
        return done[0] if trial.scope == SHARED else joined(done)

    def _one(self, arm: Arm, tasks: Sequence[Task], stepped: Callable, begun: dict | None) -> Outcome:
        import torch

        from harness.tune import finetune

        trial, found = self.trial, Outcome()
        if begun:
            found.curve = [tuple(point) for point in begun["curve"]]

        def on_step(step: int, loss: float, state: Callable[[], dict]) -> None:
            if trial.curve and step in eval_steps(trial.steps)[:-1]:
                answers, losses = self._evaluated(tasks)[:2]
                found.curve.append((step, answers, losses))
            stepped(step, loss, state, found.curve)

        self.adapter.reset()
        torch.manual_seed(trial.seed)  # dropout draws the same whatever was trained before
        trains = arm.examples is not None and (trial.scope == SHARED or arm.pool(tasks))
        found.untrained = int(arm.examples is not None and not trains)
        if trains:
            tuned = finetune.tune(
                self.model,
                self.tokenizer,
                tasks,
                arm,
                trial.recipe,
                trial.compute_dtype,
                trial.steps,
                trial.encoding,
                trial.context,
                trial.seed,
                on_step,
                trial.too_long,
                begun,
                self.tokens_at_once,
            )
            found.step_losses, found.train_s = tuned.losses, tuned.seconds
            found.used, found.too_long = tuned.used, tuned.too_long
        found.answers, found.losses, asked = self._evaluated(tasks)
        found.asked, found.skipped, found.decode_s = asked.asked, asked.skipped, asked.seconds
        if trial.curve and trains:
            found.curve.append((len(found.step_losses), found.answers, found.losses))
        return found

    def _evaluated(self, tasks: Sequence[Task]):
        from harness.train import distributed
        from harness.tune import decode

        trial, shorten = self.trial, self.trial.too_long == SHORTEN
        answerer = decode.greedy(self.model, self.tokenizer, on_batch=self.on_answers)
        how = (trial.encoding, trial.context)
        own = tasks[distributed.rank() :: distributed.world_size()]
        asked = decode.predict(own, self.tokenizer, answerer, trial.views, *how, trial.seed, shorten)
        truths = {task.id: self.truths[task.id] for task in own}
        losses = decode.losses(self.model, self.tokenizer, own, truths, *how, shorten)
        parts, every = zip(*distributed.all_gather((asked, losses)), strict=True)
        asked = decode.joined(parts, [task.id for task in tasks])
        return asked.answers, [loss for each in every for loss in each], asked


def _coverage(trial: TuneSpec, tasks: Sequence[Task], tokenizer: Any) -> Coverage:
    from harness.tune.decode import max_new_tokens_for

    def tokens(demonstrations, test_input, output):
        return len(build(tokenizer, demonstrations, test_input, output, trial.encoding).ids)

    found = lengths(tasks, tokens)
    limits = [max_new_tokens_for(p, tokenizer, trial.encoding) for p in tasks for _ in p.test_inputs]
    whole = sum(count + limit <= trial.context for count, limit in zip(found[0].tokens, limits, strict=True))
    shortest = min(
        tokens(p.demonstrations[:1] if trial.too_long == SHORTEN else p.demonstrations, test_input, None)
        + max_new_tokens_for(p, tokenizer, trial.encoding)
        for p in tasks
        for test_input in p.test_inputs
    )
    if shortest > trial.context:
        raise UserError(
            f"none of {len(tasks)} tasks fits {trial.context} tokens (the shortest needs {shortest}); "
            "ask for a longer --context"
        )
    examples = found[1].tokens if len(found) > 1 else ()
    return Coverage(len(found[0].tokens), whole, len(examples), sum(n <= trial.context for n in examples))
