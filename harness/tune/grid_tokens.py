"""The tokens that may follow within an encoded grid, by the tokenizer's own digits and newlines."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch

from harness.arc.encode import ENCODINGS
from harness.arc.grammar import ALPHABET, Written, after, may_end
from harness.errors import UserError

_BYTES = str.maketrans({"Ġ": " ", "Ċ": "\n", "▁": " "})  # how vocabularies write a space and a newline
_NEWLINES = ("<0x0A>",)
_PROBE = tuple(tuple((row + column) % 10 for column in range(11)) for row in range(11))


@dataclass(frozen=True)
class Options:
    """What may follow: `ids` int64 [options], the tokens of grids first; `states` after each of these, then the ends.

    An option beyond `states` is a token that ends the answer.
    """

    ids: torch.Tensor
    states: tuple[Written, ...]

    def log_probs(self, logits: torch.Tensor) -> torch.Tensor:
        """Log-probabilities, fp32 on the CPU, of `states` and (last, -inf where it may not) of the end, together 1.

        `logits` [vocabulary]: what may not follow has no share.
        """
        allowed = logits[self.ids.to(logits.device)].float().log_softmax(-1).cpu()
        count = len(self.states)
        return torch.cat([allowed[:count], allowed[count:].logsumexp(0, keepdim=True)])


class GridTokens:
    """The tokens of grids in `encoding`; `ends` are the ids that end an answer, `vocab_size` what the model has.

    Raises UserError where the tokenizer writes grids with tokens of other text.
    """

    def __init__(self, tokenizer: Any, encoding: str, ends: Collection[int], vocab_size: int):
        self.encoding, self.ends = encoding, sorted(ends)
        self.texts = {id: text for id, text in _texts(tokenizer).items() if id < vocab_size and id not in ends}
        written = tokenizer(ENCODINGS[encoding][0](_PROBE), add_special_tokens=False)["input_ids"]
        if not set(written) <= set(self.texts):
            raise UserError(
                f"this tokenizer writes grids as {encoding} with tokens of other text; try another --encoding, "
                "or --decode greedy"
            )
        self._options: dict[Written, Options] = {}

    def options(self, written: Written) -> Options:
        """What may follow after `written`; never nothing."""
        if written not in self._options:
            following = [(id, state) for id, text in self.texts.items()
                         if (state := after(self.encoding, written, text)) is not None]  # fmt: skip
            ids = [id for id, _ in following] + (self.ends if may_end(self.encoding, written) else [])
            self._options[written] = Options(torch.tensor(ids), tuple(state for _, state in following))
        return self._options[written]


def _texts(tokenizer: Any) -> dict[int, str]:
    """The text of every token that has characters of grids alone. Special tokens are none."""
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    characters = set(ALPHABET)
    near = [id for token, id in tokenizer.get_vocab().items() if id not in special
            and (token in _NEWLINES or set(token.translate(_BYTES)) <= characters)]  # fmt: skip
    # After a digit, so that no decoder strips a space at the beginning.
    digit = tokenizer("1", add_special_tokens=False)["input_ids"]
    before = tokenizer.decode(digit)
    texts = {id: tokenizer.decode([*digit, id])[len(before) :] for id in sorted(near)}
    return {id: text for id, text in texts.items() if text and set(text) <= characters}
