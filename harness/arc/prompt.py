"""Prompts: a question as text and token ids, and its length.

Works with any tokenizer of transformers: with its chat template if it has one, as plain text otherwise. A template that
takes no system message gets the system's text at the head of the user's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from harness.arc.encode import ENCODINGS
from harness.arc.task import Grid, Pair, Task
from harness.errors import UserError, first_line

SYSTEM = "You solve puzzles on grids of digits. Find the rule that turns each input into its output, and apply it."
# Tokens of the words around the grids, for the estimate without a tokenizer. With this value the estimated lengths of
# the published leave-one-out sequences (mean, longest, shares under 1024 to 4096) are within 2 %.
WORDS_TOKENS = 388


@dataclass(frozen=True)
class Prompt:
    """Token ids of a question and, for training, of its answer: the last `answer_tokens`, 0 without an answer.

    `shown` is the number of demonstrations in the question.
    """

    ids: tuple[int, ...]
    answer_tokens: int
    shown: int


def question(demonstrations: Sequence[Pair], test_input: Grid, encoding: str) -> str:
    """The demonstrations and the test input as text."""
    encode, _ = ENCODINGS[encoding]
    shown = "".join(
        f"Input {i}:\n{encode(pair.input)}\nOutput {i}:\n{encode(pair.output)}\n\n"
        for i, pair in enumerate(demonstrations, 1)
    )
    return f"{shown}Input {len(demonstrations) + 1}:\n{encode(test_input)}\n"


def build(
    tokenizer: Any, demonstrations: Sequence[Pair], test_input: Grid, output: Grid | None, encoding: str
) -> Prompt:
    """The prompt for `test_input`, followed by the answer and the end-of-text token if `output` is given.

    Raises UserError where the tokenizer's chat template fails.
    """
    text = question(demonstrations, test_input, encoding)
    if template := getattr(tokenizer, "chat_template", None):
        text = _rendered(tokenizer, _messages(text, _chat_style(tokenizer, str(template))))
    else:
        text = f"{tokenizer.bos_token or ''}{text}Output {len(demonstrations) + 1}:\n"
    # The answer is tokenised by itself, so that its first token is the same in training and in prediction.
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    answer: list[int] = []
    if output is not None:
        answer = tokenizer(ENCODINGS[encoding][0](output), add_special_tokens=False)["input_ids"]
        answer = [*answer, tokenizer.eos_token_id]
    return Prompt((*ids, *answer), len(answer), len(demonstrations))


@dataclass(frozen=True)
class _ChatStyle:
    """How a chat template takes messages: the system's text within the user's (`folds`), contents as lists of parts."""

    folds: bool = False
    parts: bool = False


@lru_cache(maxsize=8)
def _chat_style(tokenizer: Any, template: str) -> _ChatStyle:
    """The first style in which the whole prompt comes out of `template`, the chat template of `tokenizer`.

    Decided once per tokenizer, so that every prompt has the same. Raises UserError where there is none.
    """
    probe = "Input 1:\n12\nOutput 1:\n21"
    fault = _template_fault(tokenizer, "it leaves the user's message out")
    for style in (_ChatStyle(), _ChatStyle(folds=True), _ChatStyle(parts=True), _ChatStyle(folds=True, parts=True)):
        try:
            text = _rendered(tokenizer, _messages(probe, style))
        except UserError as error:
            # Of the simplest messages, the error is the template's own and no refusal of a system message.
            fault = error if style == _ChatStyle(folds=True) else fault
            continue
        # Some templates drop a system message, or a content of another type, without a word.
        if SYSTEM in text and probe in text:
            return style
    raise fault


def _messages(text: str, style: _ChatStyle) -> list[dict[str, Any]]:
    written = [("user", f"{SYSTEM}\n\n{text}")] if style.folds else [("system", SYSTEM), ("user", text)]
    return [
        {"role": role, "content": [{"type": "text", "text": content}] if style.parts else content}
        for role, content in written
    ]


def _rendered(tokenizer: Any, messages: list[dict[str, Any]], begin_answer: bool = True) -> str:
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=begin_answer)
    except Exception as problem:  # a template is a program, and raises whatever it likes
        raise _template_fault(tokenizer, first_line(problem)) from None


def _template_fault(tokenizer: Any, problem: str) -> UserError:
    name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
    remedy = "mend chat_template in its tokenizer_config.json or chat_template.jinja, or remove it for plain text"
    return UserError(f"the chat template of the tokenizer {name} fails: {problem}; {remedy}")


def turn_end(tokenizer: Any) -> int | None:
    """The token that the chat template writes after an answer, as <|im_end|>; None without one.

    Models answer with it where they were trained on chats, whatever the tokenizer's end of text is.
    """
    template, answer = getattr(tokenizer, "chat_template", None), "12\n21"
    if not template:
        return None
    style = _chat_style(tokenizer, str(template))
    content: Any = [{"type": "text", "text": answer}] if style.parts else answer
    messages = [*_messages("Input 1:\n3\n", style), {"role": "assistant", "content": content}]
    try:
        _, _, after = _rendered(tokenizer, messages, begin_answer=False).rpartition(answer)
    except UserError:
        return None  # a template that takes questions alone
    ids = tokenizer(after, add_special_tokens=False)["input_ids"]
    # Text after an answer, such as a newline, ends nothing.
    return ids[0] if ids and ids[0] in tokenizer.added_tokens_decoder else None


@dataclass(frozen=True, kw_only=True)
class PromptFormat:
    """How questions are written for one model, and how long they may be.

    `tokenizer` is of transformers, `encoding` a name in harness.arc.encode.ENCODINGS. With `shorten`, a prompt beyond
    `context` tokens loses its last demonstrations one by one, down to a single one; without, it does not fit.
    """

    tokenizer: Any
    encoding: str
    context: int
    shorten: bool = True

    def build(self, demonstrations: Sequence[Pair], test_input: Grid, output: Grid | None = None) -> Prompt:
        """The unshortened prompt, of any length."""
        return build(self.tokenizer, demonstrations, test_input, output, self.encoding)

    def fit(
        self, demonstrations: Sequence[Pair], test_input: Grid, output: Grid | None = None, max_new_tokens: int = 0
    ) -> Prompt | None:
        """The prompt if it fits the context with `max_new_tokens` left for the answer, else None."""
        fewest = 1 if self.shorten else len(demonstrations)
        for shown in range(len(demonstrations), fewest - 1, -1):
            prompt = self.build(demonstrations[:shown], test_input, output)
            if len(prompt.ids) + max_new_tokens <= self.context:
                return prompt
        return None

    def max_new_tokens(self, task: Task) -> int:
        """The token limit of an answer to `task`: twice the longest demonstrated output, plus 32."""
        encode, _ = ENCODINGS[self.encoding]
        outputs = (encode(pair.output) for pair in task.demonstrations)
        return 2 * max(len(self.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in outputs) + 32


def estimated_tokens(demonstrations: Sequence[Pair], test_input: Grid, output: Grid | None = None) -> int:
    """The prompt's tokens, estimated without a tokenizer: one per cell and newline, plus the words around the grids."""
    grids = [grid for pair in demonstrations for grid in (pair.input, pair.output)]
    grids += [test_input, *([output] if output else [])]
    return WORDS_TOKENS + sum(len(grid) * (len(grid[0]) + 1) for grid in grids)
