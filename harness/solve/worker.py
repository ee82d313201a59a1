"""The jobs of a run's worker: load the model once, then fine-tune and answer task after task, each within its time."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from harness.arc.arms import ARMS
from harness.arc.dataset import Questions, TrainingSequences
from harness.arc.encode import rows as grid_text
from harness.errors import UserError, first_line
from harness.records.arm import GREEDY, SCORE
from harness.records.measurement import OK
from harness.records.stored import from_stored
from harness.solve.config import LoadJob, TaskJob
from harness.train.device_errors import ran_out
from harness.train.step import TrainingStep
from harness.tune import finetune
from harness.tune.answers import Counts, decoded, scored, split, votes_of
from harness.tune.candidates import Watch, grid_tokens
from harness.tune.runner import ArmRunner

Emit = Callable[..., None]
_TELL_EVERY_S = 1.0

_solver: "TaskSolver"


def load(payload: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Loads what a `LoadJob` names: {"load_s", "notes"}. Raises UserError as ArmRunner does."""
    global _solver
    start = time.perf_counter()
    job = from_stored(payload, LoadJob)
    device = torch.device(job.spec.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        # Workers share the cores; more threads than cores would wait for one another.
        torch.set_num_threads(max(1, torch.get_num_threads() // job.workers))
    _solver = TaskSolver(job, lambda text: emit("note", text=text))
    return {"load_s": time.perf_counter() - start, "notes": list(_solver.runner.notes)}


def solve(payload: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Solves a `TaskJob` with the loaded model: fields of a SolvedTask. Emits "votes" with the same as they come."""
    return _solver.solve(from_stored(payload, TaskJob), emit)


class _TimeUp(Exception):
    """The time that a task may take is over."""


class TaskSolver:
    """A loaded model that solves one task after the other; the adapter is reset in place."""

    def __init__(self, job: LoadJob, note: Callable[[str], None]):
        self.spec, self.arm = job.spec, ARMS[job.arm]
        self.tasks = {task.id: task for task in job.tasks}
        self.runner = ArmRunner(job.spec, job.tasks, {}, note=note)
        if job.spec.decode != GREEDY:
            # Refused before the first task is trained.
            grid_tokens(self.runner.model, self.runner.tokenizer, job.spec.encoding)
        if self.arm.examples is not None and not self.runner.rehearsed:
            # The fullest pack first, so that memory runs out before the first task and not within one.
            step, prompts = self._step(), self.runner.prompts
            answers = max(prompts.max_new_tokens(task) for task in job.tasks)
            finetune.rehearse(step, self.runner.packing, self.spec.context, answers)

    def solve(self, job: TaskJob, emit: Emit) -> dict[str, Any]:
        """Trains until `job.train_s` at the latest, then answers until `job.cap_s`; what is answered by then counts.

        Another attempt has other training examples, and beyond the eight turns and reflections other views.
        """
        start = time.perf_counter()
        seed = self.spec.seed + job.attempt - 1
        self.result: dict[str, Any] = {
            "status": OK, "reason": "", "votes": [], "scores": [], "views": job.views, "steps": 0, "train_s": 0.0,
            "decode_s": 0.0, "score_s": 0.0,
            "train_tokens": 0, "question_tokens": 0, "answer_tokens": 0, "cut": False,
        }  # fmt: skip
        self.told = start
        try:
            self._train(job, seed, start)
            self._answer(job, seed, start, emit)
        except Exception as problem:
            if not ran_out(problem):
                raise
            self.result |= {"status": "oom", "reason": first_line(problem)}
        return self.result

    def _step(self) -> TrainingStep:
        spec = self.spec
        return TrainingStep(self.runner.model, spec.recipe, spec.compute_dtype, torch.device(spec.device))

    def _train(self, job: TaskJob, seed: int, start: float) -> None:
        result, task, prompts = self.result, self.tasks[job.task], self.runner.prompts
        self.runner.adapter.reset()
        torch.manual_seed(seed)
        # A task with a single demonstration has no training example; its adapter stays as it is.
        if not self.arm.pool([task]):
            return
        if job.step_s > job.train_s:
            result["cut"] = True
            return
        sequences = _Counted(TrainingSequences(self.arm.stream([task], seed, list(self.tasks.values())), prompts))

        def on_step(number: int, loss: float, state: Callable[[], dict]) -> None:
            result["steps"], result["train_tokens"] = number, sequences.tokens
            # Another step takes as long as those before.
            if (time.perf_counter() - start) * (1 + 1 / number) > job.train_s and number < self.spec.steps:
                raise _TimeUp

        try:
            finetune.tune(self._step(), sequences, self.spec.steps, on_step=on_step, packing=self.runner.packing)
        except _TimeUp:
            result["cut"] = True
        except UserError as problem:  # no example fits the context: the adapter stays as it is
            result["reason"] = f"not trained: {problem}"
        result["train_s"] = time.perf_counter() - start

    def _answer(self, job: TaskJob, seed: int, start: float, emit: Emit) -> None:
        result, runner, spec = self.result, self.runner, replace(self.spec, seed=seed)
        began, questions = time.perf_counter(), Questions([self.tasks[job.task]], runner.prompts, job.views, seed)
        result["question_tokens"] = sum(map(len, questions.prompts))
        texts: dict[int, str] = {}

        def on_texts(new: dict[int, str]) -> None:
            texts.update(new)
            now = time.perf_counter()
            result.update(self._votes(questions, texts, job.task), decode_s=now - began)
            # The process that hears it has them, should this one be killed.
            if now - self.told > _TELL_EVERY_S:
                self.told = now
                emit("votes", **result)

        scores = spec.select == SCORE
        until = _Deadline(start + min(job.decode_s, job.cap_s))
        decoded(
            runner.model,
            runner.tokenizer,
            questions.prompts,
            questions.max_new_tokens,
            spec,
            limit=runner.decoding,
            watch=Watch(on_texts=on_texts, stop=until),
        )
        result["decode_s"] = time.perf_counter() - began
        result["cut"] |= until.over
        if scores and texts:
            emit("votes", **result)
            self._score(job, questions, texts, _Deadline(start + job.cap_s))

    def _score(self, job: TaskJob, questions: Questions, texts: dict[int, str], until: "_Deadline") -> None:
        """Adds the likelihoods of the candidates; where the time is over before, or memory runs out, votes count."""
        runner, began = self.runner, time.perf_counter()
        votes = self._grids(questions, texts)
        try:
            of_task = scored(runner.model, runner.tokenizer, questions, votes, self.spec.encoding,
                             limit=runner.decoding, stop=until)[job.task]  # fmt: skip
            if any(of_task):
                self.result["scores"] = [list(scores.values()) for scores in of_task]
        finally:
            self.result["score_s"] = time.perf_counter() - began
        self.result["cut"] |= until.over

    def _grids(self, questions: Questions, texts: dict[int, str]) -> dict[str, list[Counts]]:
        return votes_of(questions, split([texts.get(i, "") for i in range(len(questions.prompts))], self.spec))

    def _votes(self, questions: Questions, texts: dict[int, str], task: str) -> dict[str, Any]:
        votes = [
            [(grid_text(grid), views) for grid, views in counts.items()]
            for counts in self._grids(questions, texts)[task]
        ]
        tokenizer, answers = self.runner.tokenizer, split(list(texts.values()), self.spec)
        tokens = sum(len(tokenizer(x, add_special_tokens=False)["input_ids"]) + 1 for own in answers for x in own)
        return {"votes": votes, "answer_tokens": tokens}


class _Deadline:
    """Whether the moment `at` of time.perf_counter is over; `over` says whether anyone was told so."""

    def __init__(self, at: float):
        self.at, self.over = at, False

    def __call__(self) -> bool:
        self.over = self.over or time.perf_counter() > self.at
        return self.over


class _Counted:
    """An iterator of (token ids, answer tokens) that counts the `tokens` drawn."""

    def __init__(self, sequences: TrainingSequences):
        self.sequences, self.tokens = sequences, 0

    def __iter__(self) -> "_Counted":
        return self

    def __next__(self) -> tuple[Any, int]:
        ids, answer = next(self.sequences)
        self.tokens += len(ids)
        return ids, answer
