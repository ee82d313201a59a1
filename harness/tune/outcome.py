"""The raw results of an arm, and the steps after which it is evaluated."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from statistics import fmean

from harness.arc.dataset import Answers
from harness.arc.task import Grid
from harness.hardware.cpu_load import CpuLoad

# Per task and test input: the attempts, the first choice first, with the share of votes or likelihood of all candidates
Choices = dict[str, list[list[tuple[Grid, float]]]]


@dataclass
class ArmOutcome:
    """The raw results of one adapter on its tasks. `joined` merges those of several adapters."""

    answers: Answers = field(default_factory=dict)
    losses: list[tuple[float, int]] = field(default_factory=list)
    step_losses: list[float] = field(default_factory=list)
    # (step, answers, losses) of each evaluation during training
    curve: list[tuple[int, Answers, list[tuple[float, int]]]] = field(default_factory=list)
    choices: Choices = field(default_factory=dict)
    train_s: float = 0.0
    decode_s: float = 0.0
    score_s: float = 0.0
    used: int = 0
    too_long: int = 0
    untrained: int = 0
    questions: int = 0
    skipped: int = 0
    # On a CPU: seconds that this took as far as they were watched, and what others used of the cores meanwhile.
    watched_s: float = 0.0
    others_core_s: float = 0.0
    overflows: int = 0  # steps in fp16 whose gradients were too large for the scale, and that were run again
    counts: dict[str, int] = field(default_factory=dict)  # by task: how many of `losses` are its own, in this order

    def losses_by_task(self) -> dict[str, list[tuple[float, int]]]:
        losses = iter(self.losses)
        return {name: list(islice(losses, count)) for name, count in self.counts.items()}

    def watched(self, load: CpuLoad, seconds: float) -> None:
        """Adds `seconds` during which others used the CPU by `load`."""
        self.watched_s += seconds
        self.others_core_s += load.others * seconds

    def cores_taken(self, threads: int) -> float | None:
        """Cores that others took from `threads` while it was watched; None where it was not, as on a card."""
        if not self.watched_s:
            return None
        return CpuLoad(self.others_core_s / self.watched_s, 0.0).taken_from(threads)


def joined(outcomes: Sequence[ArmOutcome]) -> ArmOutcome:
    """Merges outcomes of one adapter per task: sums counts and seconds, averages step losses over trained tasks."""
    total = ArmOutcome()
    for outcome in outcomes:
        total.answers |= outcome.answers
        total.choices |= outcome.choices
        total.losses += outcome.losses
        total.counts |= outcome.counts
        for name in (
            "train_s",
            "decode_s",
            "score_s",
            "watched_s",
            "others_core_s",
            "used",
            "too_long",
            "untrained",
            "questions",
            "skipped",
            "overflows",
        ):
            setattr(total, name, getattr(total, name) + getattr(outcome, name))
    trained = [outcome.step_losses for outcome in outcomes if outcome.step_losses]
    total.step_losses = [fmean(step) for step in zip(*trained, strict=True)]
    # A point of the curve has the answers of all tasks after the same number of steps.
    for step in sorted({step for outcome in outcomes for step, *_ in outcome.curve}):
        answers: Answers = {}
        losses: list[tuple[float, int]] = []
        for outcome in outcomes:
            # A task that could not be trained has the same answers at every step.
            final = step, outcome.answers, outcome.losses
            _, own_answers, own_losses = next((point for point in outcome.curve if point[0] == step), final)
            answers |= own_answers
            losses += own_losses
        total.curve.append((step, answers, losses))
    return total


def eval_steps(steps: int) -> list[int]:
    """`steps`, half of it, a quarter, ... in ascending order: at most five values, none below 1."""
    return sorted({steps >> i for i in range(5)} - {0})
