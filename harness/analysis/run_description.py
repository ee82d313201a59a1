"""One run that a budget may pay for, described whole, so that hours, accuracy and verdict are of the same thing."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from harness.records.arm import GREEDY, SHARED, TASK, VOTE, ArmResult, TuneSpec
from harness.records.cell import Cell, Goal, Recipe
from harness.records.measurement import Measurement

VIEWS = 2  # of each task, where nobody says how many
_ENCODING = "rows"
# Fields of a recipe that decide what a step computes or which adapter comes out of it, as a table names them. Others
# are of speed alone, which is the cell's, or cost nothing, which is the arm's.
OF_STEPS: Mapping[str, str] = MappingProxyType(
    {
        "lora_r": "rank",
        "lora_targets": "targets",
        "lora_dropout": "dropout",
        "method": "method",
        "trim_vocab": "trimmed vocabulary",
        "implementation": "step",
    }
)


@dataclass(frozen=True, kw_only=True)
class RunDescription:
    """Fine-tuning and answering `test_tasks` tasks on `cards` cards. `steps` are optimiser steps per adapter, of which
    there is one for all tasks or one per task, by `scope`."""

    model: str
    precision: str
    weights: str
    scope: str
    steps: int
    recipe: Recipe
    context: int
    encoding: str = _ENCODING
    views: int = VIEWS
    decode: str = GREEDY
    select: str = VOTE
    test_tasks: int
    cards: int

    @classmethod
    def of_goal(cls, row: Measurement, goal: Goal) -> "RunDescription":
        """The run of `row`'s cell where no fine-tune says more: one adapter for all tasks, the goal's steps."""
        cell = row.cell
        return cls(
            model=cell.model.name,
            precision=cell.precision,
            weights=cell.weights,
            scope=SHARED,
            steps=goal.steps,
            recipe=cell.recipe,
            context=cell.context,
            test_tasks=goal.test_tasks,
            cards=cards(row),
        )

    @classmethod
    def of_result(cls, row: Measurement, result: ArmResult, goal: Goal) -> "RunDescription":
        """The run of `result`'s arm over the goal's tasks on `row`'s cards, at the dose that its accuracy is of.

        An adapter that all tasks share takes more steps for more tasks: 64 for 10 tasks are 2560 for 400.
        """
        spec = result.spec
        steps = result.steps if spec.scope == TASK else math.ceil(result.steps * goal.test_tasks / len(spec.tasks))
        return replace(
            cls.of_goal(row, goal),
            scope=spec.scope,
            steps=steps,
            recipe=spec.recipe,
            context=spec.context,
            encoding=spec.encoding,
            views=spec.views,
            decode=spec.decode,
            select=spec.select,
        )

    @property
    def adapters(self) -> int:
        return self.test_tasks if self.scope == TASK else 1

    @property
    def dose(self) -> float:
        """Training sequences per task."""
        return self.adapters * self.steps * self.recipe.sequences_per_step / self.test_tasks

    def steps_for(self, dose: float) -> int:
        """Steps per adapter that give so many sequences per task, rounded."""
        return round(dose * self.test_tasks / (self.adapters * self.recipe.sequences_per_step))

    @property
    def work(self) -> str:
        """The training in words: "24 steps for each of 400 tasks"."""
        which = f"each of {self.test_tasks} tasks" if self.scope == TASK else f"all {self.test_tasks} tasks"
        return f"{self.steps} steps for {which}"


def cards(row: Measurement) -> int:
    """Cards that a run has: all of this name on the machine."""
    return max(row.cards, row.cell.recipe.data_parallel)


def trained_dose(result: ArmResult) -> float:
    """Training sequences per task of the arm as it was measured."""
    adapters = len(result.spec.tasks) if result.spec.scope == TASK else 1
    return adapters * result.steps * result.spec.recipe.sequences_per_step / len(result.spec.tasks)


def differences(cell: Cell, spec: TuneSpec) -> list[str]:
    """In what a fine-tune was another run than `cell` was measured for, each as "rank 16, here 32"; none where they
    match. The context counts as the others do and comes last."""
    pairs = [(name, getattr(spec.recipe, field), getattr(cell.recipe, field)) for field, name in OF_STEPS.items()]
    pairs.append(("computing in", spec.compute_dtype, cell.compute_dtype))
    pairs.append(("context", spec.context, cell.context))
    return [f"{name} {theirs}, here {here}" for name, theirs, here in pairs if theirs != here]
