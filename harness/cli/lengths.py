"""How long the sequences of a task set are, by a tokenizer or by a file of the user's own counts."""

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError, unknown
from harness.files import parse_json, read_bytes, user_path
from harness.limits import MOST_TASKS, MOST_TOKENS
from harness.text import quoted

if TYPE_CHECKING:
    from harness.arc.lengths import LengthDistribution

DEFAULT_SET = "arc1-evaluation"
_MOST_BYTES = 1 << 26


def of_set(source: str, tokenizer: str | None, encoding: str) -> tuple["list[LengthDistribution]", str]:
    """Lengths of the set's test questions and of its leave-one-out examples, and how they were found.

    Without a `tokenizer` they are estimated from the cells of the grids. Raises UserError.
    """
    from harness.arc.dataset import distributions
    from harness.arc.encode import ENCODINGS
    from harness.arc.sources import load as load_tasks
    from harness.records.stored import from_stored

    # Everything is checked before the tasks are read.
    if encoding not in ENCODINGS:
        raise unknown("encoding", encoding, ENCODINGS)
    if tokenizer is not None and not user_path(tokenizer).exists():
        raise UserError(f"--tokenizer {quoted(tokenizer)}: there is no such folder or GGUF file; name one that is here")
    tasks, _ = load_tasks(source)
    # By counting cells: no model is looked at.
    if tokenizer is None:
        return distributions(tasks), f"{source}: estimated, at one token per cell and newline, and 388 for the words"
    from harness.arc.lengths import LengthDistribution
    from harness.workers.local import AskFailed, LocalExecutor

    with LocalExecutor() as executor:
        payload = {"source": source, "tokenizer": tokenizer, "encoding": encoding}
        try:
            counted = executor.ask("harness.tune.token_counts:count", payload)
        except AskFailed as problem:
            raise UserError(f"counting tokens failed: {problem}") from None
    made = [from_stored(raw, LengthDistribution) for raw in counted]
    return made, f"{source}: counted by the tokenizer at {tokenizer}, grids as {encoding}"


def of_training(tasks: str | None, tokenizer: str | None, counts: Path | None) -> "LengthDistribution | None":
    """Lengths of training sequences as the options of predict name them; None where they name none.

    Raises UserError where they name two, and where a set has no example to train on.
    """
    from dataclasses import replace

    if counts:
        if tasks or tokenizer:
            raise UserError("--tokens-per-task has the lengths; leave out --tasks and --tokenizer")
        return _of_file(counts)
    if not tasks and not tokenizer:
        return None
    made, how = of_set(tasks or DEFAULT_SET, tokenizer, "rows")
    examples = [lengths for lengths in made if lengths.name == "leave-one-out"]
    if not examples:
        raise UserError(f"{tasks or DEFAULT_SET}: no task has two demonstrations, so there is no sequence to train on")
    return replace(examples[0], name=f"the leave-one-out sequences of {how}")


def _of_file(path: Path) -> "LengthDistribution":
    """The lengths in a file: a JSON list of numbers, a JSON mapping of tasks to a number or a list of them, or numbers
    between white space. Raises UserError for any other file."""
    from harness.arc.lengths import LengthDistribution

    remedy = "write a JSON list of tokens, a mapping of tasks to tokens, or a number per line"
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: is no regular file; {remedy}")
        content = read_bytes(path, _MOST_BYTES).removeprefix(codecs.BOM_UTF8)
    except (OSError, ValueError) as problem:
        raise UserError(f"{path}: cannot be read ({getattr(problem, 'strerror', None) or problem})") from None
    try:
        value = parse_json(content)
    except ValueError:
        value = [int(word) if word.isdigit() and len(word) < 9 else word.decode("utf-8", "replace")
                 for word in content.split()]  # fmt: skip
    counts = list(_numbers(value))
    for count in counts:
        if type(count) is not int or not 2 <= count <= MOST_TOKENS:
            raise UserError(f"{path}: {quoted(count)} is no number of tokens from 2 to {MOST_TOKENS}; {remedy}")
    if not 1 <= len(counts) <= MOST_TASKS:
        raise UserError(f"{path}: has {len(counts)} numbers; {remedy}, 1 to {MOST_TASKS} in all")
    return LengthDistribution.of(str(path), counts)


def _numbers(value: Any) -> Iterator[Any]:
    """The members of lists and mappings, however deep; what is neither, itself."""
    if isinstance(value, dict | list):
        for member in value.values() if isinstance(value, dict) else value:
            yield from _numbers(member)
    else:
        yield value
