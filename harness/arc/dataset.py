"""ARC as a data set for a model: training sequences, questions in several views, and answers back as grids."""

from collections.abc import Callable, Iterator, Sequence

from harness.arc import augment
from harness.arc.encode import ENCODINGS
from harness.arc.examples import Example, leave_one_out, questions
from harness.arc.lengths import LengthDistribution
from harness.arc.prompt import PromptFormat, estimated_tokens
from harness.arc.task import LARGEST, Grid, Pair, Solutions, Task
from harness.errors import UserError

Answers = dict[str, list[list[Grid | None]]]  # per task, per test input: the answer of each view
MOST_MISSES = 2000  # successive examples beyond the context after which none is expected to fit


class TrainingSequences:
    """Iterator of (token ids, answer tokens), one per example that fits the context; counts `used` and `too_long`.

    next() raises UserError if no example fits, or if there is none at all.
    """

    def __init__(self, examples: Iterator[Example], prompts: PromptFormat):
        self.examples, self.prompts = examples, prompts
        self.used = self.too_long = 0

    def __iter__(self) -> "TrainingSequences":
        return self

    def __next__(self) -> tuple[Sequence[int], int]:
        misses = 0
        for example in self.examples:
            if prompt := self.prompts.fit(example.demonstrations, example.test_input, example.output):
                self.used += 1
                return prompt.ids, prompt.answer_tokens
            self.too_long, misses = self.too_long + 1, misses + 1
            if misses == MOST_MISSES:
                break
        # The stream is endless unless the tasks have no example, so getting here is an error either way.
        if misses:
            limit = self.prompts.context
            raise UserError(f"no training example fits {limit} tokens; ask for a longer context with --context")
        raise UserError("no task has the two demonstrations that leave-one-out needs; use --arms baseline")

    def skip(self, used: int, too_long: int) -> None:
        """Skips the examples that an earlier run drew, so that a resumed run continues after them."""
        self.used, self.too_long = used, too_long
        for _ in range(used + too_long):
            next(self.examples)


class Questions:
    """Every test input of `tasks` in `views` views, as prompts for a model.

    `prompts` holds token ids, `max_new_tokens` the longest answer allowed to each. A question that does not fit the
    context is left out and counted in `skipped`.
    """

    def __init__(self, tasks: Sequence[Task], prompts: PromptFormat, views: int, seed: int = 0):
        self.prompts: list[Sequence[int]] = []
        self.max_new_tokens: list[int] = []
        self.skipped = 0
        self._decode = ENCODINGS[prompts.encoding][1]
        self._blank = {task.id: [views] * len(task.test_inputs) for task in tasks}
        # For each prompt: its task's id, the test input's index, the view's index, the view.
        self._places: list[tuple[str, int, int, augment.View]] = []
        for task in tasks:
            for number, view in enumerate(augment.views(views, len(task.demonstrations), seed)):
                viewed = view.of(task)
                # The prompt must leave room for the answer.
                limit = prompts.max_new_tokens(viewed)
                for i, (demonstrations, test_input) in enumerate(questions(viewed)):
                    prompt = prompts.fit(demonstrations, test_input, max_new_tokens=limit)
                    if prompt is None:
                        self.skipped += 1
                        continue
                    self.prompts.append(prompt.ids)
                    self.max_new_tokens.append(limit)
                    self._places.append((task.id, i, number, view))

    def candidates(self, texts: Sequence[Sequence[str]]) -> list[tuple[str, int, list[Grid]]]:
        """(task's id, test input, grids mapped back from the view) of each prompt, whose answers are `texts`.

        What is no grid is left out, and so is a grid that comes again.
        """
        out = []
        for (id, i, _, view), answers in zip(self._places, texts, strict=True):
            grids = (self._grid(text, view) for text in answers)
            out.append((id, i, list(dict.fromkeys(grid for grid in grids if grid is not None))))
        return out

    def in_view(self, number: int, grid: Grid) -> Grid:
        """`grid` as the prompt of this number shows it."""
        return self._places[number][3].apply(grid)

    def answers(self, texts: Sequence[str]) -> Answers:
        """The grids in `texts`, one text per prompt, mapped back from their views; None where there is no grid."""
        answers: Answers = {id: [[None] * views for views in counts] for id, counts in self._blank.items()}
        for (id, i, number, view), text in zip(self._places, texts, strict=True):
            answers[id][i][number] = self._grid(text, view)
        return answers

    def _grid(self, text: str, view: augment.View) -> Grid | None:
        grid = self._decode(text)
        return None if grid is None else view.invert(grid)


def cannot_be_grid(text: str) -> bool:
    """Whether no grid's encoding begins with `text`, because a row is too long or there are too many rows."""
    # The widest encoding writes 30 digits with spaces, or a row number before 30 digits; one line more for the shape.
    lines = text.strip("\n").split("\n")
    return len(lines) > LARGEST + 1 or max(map(len, lines)) > 2 * LARGEST + 3


def solved_sequences(
    tasks: Sequence[Task], solutions: Solutions, prompts: PromptFormat
) -> list[tuple[Sequence[int], int]]:
    """(token ids, answer tokens) of every question with its true output, if it fits. For evaluation only."""
    fitted = (
        prompts.fit(demonstrations, test_input, output)
        for task in tasks
        for (demonstrations, test_input), output in zip(questions(task), solutions.get(task.id, ()), strict=False)
    )
    return [(prompt.ids, prompt.answer_tokens) for prompt in fitted if prompt]


def distributions(
    tasks: Sequence[Task], tokens_of: Callable[[Sequence[Pair], Grid, Grid | None], int] = estimated_tokens
) -> list[LengthDistribution]:
    """Lengths of the test questions without answers, and of the leave-one-out examples with theirs."""
    lengths = [tokens_of(shown, grid, None) for task in tasks for shown, grid in questions(task)]
    examples = [tokens_of(e.demonstrations, e.test_input, e.output) for task in tasks for e in leave_one_out(task)]
    kinds = {"test questions": lengths, "leave-one-out": examples}
    return [LengthDistribution.of(name, counts) for name, counts in kinds.items() if counts]
