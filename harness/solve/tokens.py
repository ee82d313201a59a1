"""How many tokens a task's training sequences, questions and answers have: what its seconds depend on."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from harness.arc.arms import ARMS
from harness.arc.encode import ENCODINGS
from harness.arc.examples import questions
from harness.arc.prompt import WORDS_TOKENS, PromptFormat
from harness.arc.task import Task
from harness.errors import Unsupported, UserError
from harness.records.cell import Recipe
from harness.records.stored import from_stored, to_stored

COUNT = "harness.solve.tokens:count"


@dataclass(frozen=True)
class TaskTokens:
    """`examples`: of each leave-one-out sequence that fits the context, answer included. `questions`: of each test
    input's prompt; one that does not fit is left out and counted in `unasked`. `answer`: expected of an answer."""

    id: str
    examples: tuple[int, ...]
    questions: tuple[int, ...]
    answer: float
    unasked: int = 0


def unasked(tokens: Collection[TaskTokens], context: int) -> str | None:
    """A sentence on the tasks with a test input that gets no answer, for it does not fit; None where all fit."""
    ids = [task.id for task in tokens if task.unasked]
    if not ids:
        return None
    more = f" and {len(ids) - 4} more" if len(ids) > 4 else ""
    have = "has" if len(ids) == 1 else "have"
    return (
        f"{len(ids)} of {len(tokens)} tasks {have} a test input beyond {context} tokens, which gets no answer; a "
        f"longer --context may ask it: {' '.join(ids[:4])}{more}"
    )


@dataclass(frozen=True)
class CountJob:
    """What to count, with which tokenizer: that of `weights`, or none where these are random."""

    tasks: tuple[Task, ...]
    arm: str
    context: int
    encoding: str
    shorten: bool
    weights: str | None
    recipe: Recipe


def count(payload: dict[str, Any], emit: Callable[..., None]) -> list[Any]:
    """The TaskTokens of a `CountJob`, both as stored. Raises UserError where there is no such tokenizer."""
    job = from_stored(payload, CountJob)
    prompts = PromptFormat(tokenizer=_tokenizer(job), encoding=job.encoding, context=job.context, shorten=job.shorten)
    counted = []
    for number, task in enumerate(job.tasks):
        emit("counted", done=number, total=len(job.tasks))
        counted.append(to_stored(tokens_of(task, prompts, job.arm, job.tasks)))
    return counted


def tokens_of(task: Task, prompts: PromptFormat, arm: str, partners: Sequence[Task] = ()) -> TaskTokens:
    """The tokens of `task`. Colours and turns change them little, so views count as the task itself.

    Where the arm combines tasks, `partners` are those that stand beside.
    """
    limit, encode = prompts.max_new_tokens(task), ENCODINGS[prompts.encoding][0]
    answers = [len(prompts.tokenizer(encode(p.output), add_special_tokens=False)["input_ids"]) for p in
               task.demonstrations]  # fmt: skip
    examples = [prompts.fit(e.demonstrations, e.test_input, e.output) for e in ARMS[arm].pool([task], partners)]
    asked = [prompts.fit(shown, test_input, max_new_tokens=limit) for shown, test_input in questions(task)]
    fitting = [len(prompt.ids) for prompt in asked if prompt]
    return TaskTokens(
        id=task.id,
        examples=tuple(len(prompt.ids) for prompt in examples if prompt),
        questions=tuple(fitting),
        answer=fmean(answers) + 1,
        unasked=len(asked) - len(fitting),
    )


def _tokenizer(job: CountJob) -> Any:
    if job.weights is None:
        return _OnePerCell()
    from harness.train.model import tokenizer_for

    try:
        return tokenizer_for(job.weights, job.recipe)
    except Unsupported as problem:
        raise UserError(str(problem)) from None


class _OnePerCell:
    """A stand-in for a tokenizer that is not at hand: a token per cell and newline, and a chat's words."""

    chat_template, bos_token, eos_token_id = None, "", 0

    def __call__(self, text: str, add_special_tokens: bool = False) -> dict[str, list[int]]:
        prompt = text.startswith("Input ")
        marks = sum(line.count(" ") == 0 and line.isdigit() and len(line) + 1 for line in text.split("\n"))
        return {"input_ids": [0] * (marks + WORDS_TOKENS * prompt)}
