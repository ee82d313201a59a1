"""The job that counts the tokens of a set's prompts; in another process, as transformers takes seconds to import."""

from collections.abc import Callable, Sequence
from typing import Any

from harness.arc.dataset import distributions
from harness.arc.prompt import build
from harness.arc.sources import load
from harness.arc.task import Grid, Pair
from harness.errors import Unsupported, UserError
from harness.records.stored import to_stored
from harness.train.model import load_tokenizer


def count(payload: dict[str, str], emit: Callable[..., None]) -> Any:
    """The LengthDistributions, as stored, of the set `source` with a `tokenizer` and an `encoding`.

    Raises UserError where there is no such set or tokenizer.
    """
    tasks, _ = load(payload["source"])
    try:
        tokenizer = load_tokenizer(payload["tokenizer"])
    except Unsupported as problem:
        raise UserError(str(problem)) from None
    encoding = payload["encoding"]

    def tokens_of(demonstrations: Sequence[Pair], test_input: Grid, output: Grid | None) -> int:
        return len(build(tokenizer, demonstrations, test_input, output, encoding).ids)

    return to_stored(distributions(tasks, tokens_of))
