"""Trains and evaluates one arm: the loaded model with its tasks, one adapter for all of them or one per task."""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import islice

import torch

from harness.arc.arms import Arm
from harness.arc.dataset import Questions, TrainingSequences, solved_sequences
from harness.arc.prompt import PromptFormat
from harness.arc.task import Solutions, Task
from harness.catalog.precisions import find
from harness.errors import Unsupported, UserError
from harness.hardware.cpu_load import CpuMeter, own_seconds
from harness.predict.prediction import Prediction
from harness.records.arm import SHARED, SHORTEN, TuneSpec
from harness.records.cell import Cell
from harness.train import distributed, special_tokens
from harness.train import model as models
from harness.train.packing import Packing, PackSetting, default_tokens_at_once
from harness.train.step import TrainingStep
from harness.tune import autotune, decode, finetune
from harness.tune.ahead import Ahead
from harness.tune.answers import chosen, decoded
from harness.tune.candidates import Watch
from harness.tune.checkpoint import Checkpointer, answers_path
from harness.tune.coverage import coverage_of
from harness.tune.decode_answers import KeptAnswers, Prompts
from harness.tune.decode_batches import TokenLimit
from harness.tune.decode_check import way_of
from harness.tune.outcome import ArmOutcome, eval_steps, joined
from harness.tune.saved_state import checked

_AUTOTUNE_EXAMPLES = 64  # autotune times the fullest pack of these


class ArmRunner:
    """The loaded model with its initial adapter and its tokenizer, and the tasks that it must solve.

    Raises UserError where the model cannot be loaded, has no tokenizer, or no question fits the context.
    """

    def __init__(
        self,
        spec: TuneSpec,
        tasks: Sequence[Task],
        truths: Solutions,
        on_answers: Callable[[int, int], None] = lambda done, total: None,
        note: Callable[[str], None] = lambda text: None,
    ):
        self.spec, self.tasks, self.truths, self.on_answers = spec, tasks, truths, on_answers
        try:
            self.tokenizer = models.tokenizer_for(spec.weights, spec.recipe)
            self.prompts = PromptFormat(
                tokenizer=self.tokenizer,
                encoding=spec.encoding,
                context=spec.context,
                shorten=spec.too_long == SHORTEN,
            )
            # Before loading the model: prompts that do not fit must fail within seconds.
            self.coverage = coverage_of(tasks, self.prompts)
            device = torch.device(spec.device)
            loaded = models.load(
                spec.model, find(spec.precision), spec.compute_dtype, spec.recipe, spec.weights, device, spec.seed
            )
            loaded = models.confirmed(loaded, spec.recipe, device, spec.context)
            special_tokens.must_fit(self.tokenizer, loaded.model)
        except Unsupported as problem:
            raise UserError(f"{spec.model.name}: {problem}") from None
        self.model, self.adapter = loaded.model, finetune.Adapter(loaded.model)
        self.kernels, self.notes, self.adapted = loaded.kernels, loaded.kernel_notes + loaded.notes, loaded.adapted
        self.row_notes = models.attention_ran(loaded.model, device, spec.context)
        if not way_of(loaded.model.get_base_model().config).cached:
            self.notes += ("decodes without a cache, slowly: none is shown to give the same answers here",)
        # The card with least free memory decides for all that train together.
        tokens = min(distributed.all_gather(max(spec.context, default_tokens_at_once(loaded.model))))
        self.packing = Packing(loaded.model, PackSetting(tokens, spec.recipe.gradient_checkpointing), note)
        self.decoding = TokenLimit(note=note)
        # What others use of a CPU slows training; this program is all that its first process started.
        self.meter = CpuMeter(own=lambda: own_seconds(os.getppid())) if device.type == "cpu" else None
        self.rehearsed = device.type != "cuda"  # a machine's memory has no such edge

    def autotune(self, arm: Arm, foresee: Callable[[Cell], Prediction | None], note: Callable[[str], None]) -> None:
        """Finds the fastest packing that fits the memory, on examples of `arm`; all arms then train with it.

        Raises torch.OutOfMemoryError where none fits.
        """
        sequences = list(islice(self._sequences(arm, self.tasks), _AUTOTUNE_EXAMPLES))
        tried = autotune.variants(self.spec, foresee, self.packing.setting.tokens)
        self.packing.setting = autotune.fastest(self.model, sequences, tried, self.spec, note)

    def run(self, arm: Arm, checkpointer: Checkpointer, on_step: Callable[[str, int, int, float], None]) -> ArmOutcome:
        """The outcome of one arm, with one adapter for all tasks or one per task (joined), as the spec's scope says."""
        spec = self.spec
        self.kept = KeptAnswers(
            answers_path(checkpointer.path, distributed.rank()), checkpointer.note, checkpointer.fresh
        )
        groups = [self.tasks] if spec.scope == SHARED else [[task] for task in self.tasks]
        # A saved state has the outcomes of finished groups, and the training state of the current one.
        saved = checkpointer.load(lambda state: checked(state, spec, groups, self.adapter.first))
        done = [ArmOutcome(**outcome) for outcome in saved.get("done", ())]
        current = saved.get("current")

        def state() -> dict:
            return {"done": [asdict(outcome) for outcome in done]}

        def stepped(step: int, loss: float, training: Callable[[], dict]) -> None:
            on_step(arm.name, len(done) * spec.steps + step, len(groups) * spec.steps, loss)
            # Always save at evaluation steps (with one adapter for all tasks), otherwise every half minute: after a
            # kill the same adapter must answer the rest.
            now = spec.scope == SHARED and step in eval_steps(spec.steps)
            checkpointer.save(lambda: {**state(), "current": training()}, now)

        for group in groups[len(done) :]:
            done.append(self._run_group(arm, group, stepped, current))
            current = None
            if spec.scope != SHARED:
                checkpointer.save(state)
        return done[0] if spec.scope == SHARED else joined(done)

    def _run_group(self, arm: Arm, tasks: Sequence[Task], stepped: Callable, saved: dict | None) -> ArmOutcome:
        """The outcome of one adapter, trained on `tasks` and evaluated; training resumes from `saved` if given."""
        outcome = ArmOutcome()
        if self.meter:
            self.meter.start()
        self.adapter.reset()
        torch.manual_seed(self.spec.seed)  # dropout must not depend on what was trained before
        # A task with a single demonstration has no training example; its adapter stays as it is.
        trains = arm.examples is not None and (self.spec.scope == SHARED or bool(arm.pool(tasks)))
        outcome.untrained = int(arm.examples is not None and not trains)
        if trains:
            self._train(arm, tasks, outcome, stepped, saved)
        self._evaluate(tasks, outcome)
        if self.spec.curve and trains:
            outcome.curve.append((len(outcome.step_losses), outcome.answers, outcome.losses))
        self._watch(outcome)
        return outcome

    def _watch(self, outcome: ArmOutcome) -> None:
        """Adds to `outcome` what others used of the CPU since this was last called."""
        if self.meter:
            outcome.watched(self.meter.read(), self.meter.seconds)
            self.meter.start()

    def _train(
        self, arm: Arm, tasks: Sequence[Task], outcome: ArmOutcome, stepped: Callable, saved: dict | None
    ) -> None:
        """Trains the adapter and fills in `outcome`: losses, seconds, counts of examples, and the curve."""
        sequences = self._sequences(arm, tasks)
        if saved:
            outcome.curve = [tuple(point) for point in saved["curve"]]
            outcome.watched_s, outcome.others_core_s = saved["watched"]
            sequences.skip(*saved["examples"])
        # On a CPU a thread would take its cores from the step.
        if not draws_ahead(self.spec.device):
            self._train_on(sequences, tasks, outcome, stepped, saved)
            return
        with Ahead(sequences) as drawn:
            self._train_on(drawn, tasks, outcome, stepped, saved)

    def _train_on(
        self,
        sequences: TrainingSequences | Ahead,
        tasks: Sequence[Task],
        outcome: ArmOutcome,
        stepped: Callable,
        saved: dict | None,
    ) -> None:
        spec = self.spec

        def training(state: Callable[[], dict]) -> dict:
            self._watch(outcome)
            watched = outcome.watched_s, outcome.others_core_s
            counts = sequences.used, sequences.too_long
            return {"training": state(), "examples": counts, "curve": outcome.curve, "watched": watched}

        # The last point of the curve is the final evaluation, which the caller makes.
        def on_step(number: int, loss: float, state: Callable[[], dict]) -> None:
            if spec.curve and number in eval_steps(spec.steps)[:-1]:
                point = ArmOutcome()
                self._evaluate(tasks, point)
                outcome.curve.append((number, point.answers, point.losses))
            stepped(number, loss, lambda: training(state))

        step = TrainingStep(self.model, spec.recipe, spec.compute_dtype, torch.device(spec.device))
        if not self.rehearsed:
            answers = max(self.prompts.max_new_tokens(task) for task in tasks)
            finetune.rehearse(step, self.packing, spec.context, answers)
            self.rehearsed = True
        tuned = finetune.tune(
            step,
            sequences,
            spec.steps,
            on_step=on_step,
            resume=saved and saved["training"],
            packing=self.packing,
        )
        outcome.step_losses, outcome.train_s = tuned.losses, tuned.seconds
        outcome.used, outcome.too_long = sequences.used, sequences.too_long
        outcome.overflows = step.overflows

    def _sequences(self, arm: Arm, tasks: Sequence[Task]) -> TrainingSequences:
        return TrainingSequences(arm.stream(tasks, self.spec.seed, self.tasks), self.prompts)

    def _evaluate(self, tasks: Sequence[Task], outcome: ArmOutcome) -> None:
        """Answers every test input in every view and fills in `outcome`: answers, losses of the true outputs, seconds.

        With several processes each one answers its share of the tasks, and all receive all results.
        """
        own = tasks[distributed.rank() :: distributed.world_size()]
        questions = Questions(own, self.prompts, self.spec.views, self.spec.seed)
        # Answers are kept as they come: decoding may take hours.
        texts, seconds = self.kept.answer(
            self.adapter.values(), questions.prompts, questions.max_new_tokens, self._decode, self.on_answers
        )
        answers, choices, score_s = chosen(self.model, self.tokenizer, questions, texts, self.spec, limit=self.decoding)
        solved = {task.id: solved_sequences([task], self.truths, self.prompts) for task in own}
        losses = decode.losses(self.model, [sequence for sequences in solved.values() for sequence in sequences])
        counts = {name: len(sequences) for name, sequences in solved.items()}
        part = ArmOutcome(answers, losses, counts=counts, choices=choices, decode_s=seconds, score_s=score_s)
        part.questions, part.skipped = len(texts), questions.skipped
        # Every rank merges all parts: answers in the order of the tasks, the slowest rank's seconds.
        parts = distributed.all_gather(part)
        self.kept.discard()
        merged = joined(parts)
        outcome.answers = {task.id: merged.answers[task.id] for task in tasks}
        outcome.choices = {task.id: merged.choices[task.id] for task in tasks}
        by_task = {name: own for part in parts for name, own in part.losses_by_task().items()}
        outcome.losses = [loss for task in tasks for loss in by_task[task.id]]
        outcome.counts = {task.id: len(by_task[task.id]) for task in tasks}
        outcome.questions = sum(part.questions for part in parts)
        outcome.skipped = sum(part.skipped for part in parts)
        outcome.decode_s = max(part.decode_s for part in parts)
        outcome.score_s = max(part.score_s for part in parts)

    def _decode(self, prompts: Prompts, limits: Sequence[int], on_texts: Callable[[dict[int, str]], None]) -> None:
        decoded(
            self.model, self.tokenizer, prompts, limits, self.spec, limit=self.decoding, watch=Watch(on_texts=on_texts)
        )


def draws_ahead(device: str) -> bool:
    """Whether prompts are prepared in a thread ahead of the step."""
    return device.startswith("cuda")
