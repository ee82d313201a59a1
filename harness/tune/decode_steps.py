"""The steps of decoding a batch, in the way that its architecture allows: with or without a cache, padded or not."""

import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch

from harness.train.check import use_plain_attention
from harness.train.ops import attention
from harness.tune.decode_attention import configs_of, set_attention

ANY: Final = "any"
EQUAL: Final = "equal"
ONE: Final = "one"
# Names that models give to what they remember, both in their outputs and their inputs.
_CACHES = ("cache", "past_key_values", "cache_params", "state")
_LOOK_EVERY = 16  # tokens between two checks for a hopeless answer


@dataclass(frozen=True)
class Way:
    """How an architecture is decoded so that a row's logits are those of its tokens alone, without a cache.

    `rows` is what a batch may hold: prompts of "any" length (padded on the left), of "equal" length, or "one" alone.
    `cached`: earlier tokens are not computed again. `leaves`: rows can be taken out of the cache. `beyond`: prompts are
    longer than what a rotary embedding that depends on the length takes for short. `static`: the cache may be one
    allocation whose rows are filled again (harness.tune.decode_slots). `gaps`: masked columns may stand between a row's
    tokens there. `grouped`: heads that share keys attend together there (harness.tune.decode_attention).
    """

    cached: bool = True
    rows: Literal["any", "equal", "one"] = ANY
    leaves: bool = True
    beyond: bool = False
    static: bool = False
    gaps: bool = False
    grouped: bool = False


class Answer:
    """The tokens that one prompt has been answered with, until `finished`."""

    def __init__(self, limit: int, ends: Collection[int], hopeless: Callable[[list[int]], bool]):
        self.tokens: list[int] = []
        self.limit, self.ends, self.hopeless = limit, ends, hopeless
        self.finished = False

    @property
    def left(self) -> int:
        """Tokens that are still allowed."""
        return self.limit - len(self.tokens)

    @property
    def ended(self) -> bool:
        """Whether the last token is one that ends an answer."""
        return bool(self.tokens) and self.tokens[-1] in self.ends

    def add(self, token: int) -> bool:
        """Adds a token; whether it is the last: it ends the answer, no more are allowed, or the answer is hopeless."""
        self.tokens.append(token)
        full = len(self.tokens) == self.limit
        lost = len(self.tokens) % _LOOK_EVERY == 0 and self.hopeless(self.tokens)
        self.finished = self.ended or full or lost
        return self.finished


class Steps:
    """A batch of prompts that grows by a token per row and step.

    `ids` int64 [rows, longest prompt], with `mask` 0 where a row is padded. `model` has plain attention.
    """

    def __init__(self, model: Any, ids: torch.Tensor, mask: torch.Tensor, way: Way):
        self.model, self.ids, self.mask, self.way = model, ids, mask, way
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.takes = inspect.signature(base.forward).parameters
        self.cache: dict[str, Any] = {}

    def logits(self) -> torch.Tensor:
        """[rows, vocabulary] of the token after each row. Raises LookupError where the model returns no cache."""
        # Positions count from a row's first token.
        inputs: dict[str, Any] = {"input_ids": self.ids, "position_ids": (self.mask.cumsum(1) - 1).clamp(min=0)}
        if self.cache:
            inputs = {name: whole[:, -1:] for name, whole in inputs.items()}
        options = {"attention_mask": self.mask, "use_cache": self.way.cached, "logits_to_keep": 1}
        inputs |= options
        output = self.model(**{name: value for name, value in inputs.items() if name in self.takes}, **self.cache)
        if self.way.cached:
            name = next((name for name in _CACHES if name in self.takes and output.get(name) is not None), None)
            if name is None:
                raise LookupError("the model returns no cache")
            self.cache = {name: output[name]}
        return output.logits[:, -1]

    def append(self, tokens: torch.Tensor, live: torch.Tensor) -> None:
        """The next token of each row, int64 [rows]; a row that is not `live`, bool [rows], stays where it is."""
        self.ids = torch.cat([self.ids, tokens[:, None]], 1)
        self.mask = torch.cat([self.mask, live[:, None].to(self.mask)], 1)

    def keep(self, rows: torch.Tensor) -> None:
        """Takes all rows but those of the indices `rows` out of the batch and its cache; the way must allow it."""
        self.ids, self.mask = self.ids[rows], self.mask[rows]
        for cache in self.cache.values():
            # States are not selected with the keys, but have an order for beam search, which may leave rows out.
            select = not any(hasattr(layer, "conv_states") for layer in cache.layers)
            (cache.batch_select_indices if select else cache.reorder_cache)(rows)


def left_padded(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """ids and mask, int64 [rows, longest]: the next token of every row stands at the right end."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros(len(rows), width, dtype=torch.int64)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.tensor(row)
        mask[i, width - len(row) :] = 1
    return ids.to(device), mask.to(device)


@contextmanager
def plain_attention(model: Any) -> Iterator[Callable[[], AbstractContextManager] | None]:
    """transformers' own attention, for padded batches and caches; afterwards `model` has what it had before.

    Gives a context in which `model` has our own attention, for whole prompts, or None where it had not; cuDNN's makes a
    plan for every new length.
    """
    base = model.get_base_model()
    before = [(config, config._attn_implementation) for config in configs_of(base)]

    @contextmanager
    def own() -> Iterator[None]:
        plain = [(config, config._attn_implementation) for config, _ in before]
        try:
            set_attention(before)
            yield
        finally:
            set_attention(plain)

    try:
        use_plain_attention(model)
        ours = all(name == attention.NAME for _, name in before)
        yield own if ours and attention.kernel_of(model) != "cudnn" else None
    finally:
        set_attention(before)
