"""A question as a model reads it, and how many tokens that is.

Works with any tokenizer of transformers: through its chat template where it has one, as plain text else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.arc.encode import ENCODINGS
from harness.arc.task import Grid, Pair

SYSTEM = "You solve puzzles on grids of digits. Find the rule that turns each input into its output, and apply it."
# What the words around the grids cost, for the estimate without a tokenizer: with it the lengths of the published
# leave-one-out sequences (mean, longest, shares under 1024 to 4096) come out within 2 %.
WORDS_TOKENS = 388


@dataclass(frozen=True)
class Prompt:
    """Token ids of a question and, for training, its answer: the last `answer` of them, 0 for a prediction."""

    ids: tuple[int, ...]
    answer: int
    pairs: int


def question(pairs: Sequence[Pair], asked: Grid, encoding: str) -> str:
    """The demonstrations and the input that is asked about, as text."""
    there = ENCODINGS[encoding][0]
    shown = "".join(f"Input {i}:\n{there(p.input)}\nOutput {i}:\n{there(p.output)}\n\n" for i, p in enumerate(pairs, 1))
    return f"{shown}Input {len(pairs) + 1}:\n{there(asked)}\n"


def build(tokenizer: Any, pairs: Sequence[Pair], asked: Grid, output: Grid | None, encoding: str) -> Prompt:
    """The prompt for `asked`, with its answer and the end-of-text token if `output` is given.

    The answer is tokenised by itself, so that its first token is the same in training and in prediction.
    """
    text = question(pairs, asked, encoding)
    if getattr(tokenizer, "chat_template", None):
        said = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
        text = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
    else:
        text = f"{tokenizer.bos_token or ''}{text}Output {len(pairs) + 1}:\n"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    answer: list[int] = []
    if output is not None:
        answer = tokenizer(ENCODINGS[encoding][0](output), add_special_tokens=False)["input_ids"]
        answer = [*answer, tokenizer.eos_token_id]
    return Prompt((*ids, *answer), len(answer), len(pairs))


def fitted(
    tokenizer: Any,
    pairs: Sequence[Pair],
    asked: Grid,
    output: Grid | None,
    encoding: str,
    context: int,
    drop_pairs: bool = False,
    room: int = 0,
) -> Prompt | None:
    """The prompt if it fits `context` tokens with `room` of them left for the answer, else None.

    With `drop_pairs` demonstrations are left out from the end, one at a time, as long as one stays.
    """
    for shown in range(len(pairs), 0, -1):
        prompt = build(tokenizer, pairs[:shown], asked, output, encoding)
        if len(prompt.ids) + room <= context:
            return prompt
        if not drop_pairs:
            break
    return None


def estimated_tokens(pairs: Sequence[Pair], asked: Grid, output: Grid | None = None) -> int:
    """Tokens of the prompt at one a cell and one a newline, plus the words: an estimate, for want of a tokenizer."""
    grids = [grid for pair in pairs for grid in (pair.input, pair.output)] + [asked] + ([output] if output else [])
    return WORDS_TOKENS + sum(len(grid) * (len(grid[0]) + 1) for grid in grids)
