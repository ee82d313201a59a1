"""Decoding with one static cache: rows leave it when they are finished, and new prompts are read into their places.

All rows write to the same column, so that a row stands in the cache as in a batch that is padded on the left:

    row 0   . p p p p a a |
    row 1   p p p p p p a |     p a prompt's token, a an answer's, . masked; the next tokens go to the column after
    row 2   . . . . p p p |

A prompt that is read later ends where the others' last tokens are. A step may write several tokens per row, of which
a row keeps the first ones; the columns of the others stay behind, masked, until the cache's right end is reached: then
every row's tokens move together. Only views of the cache go to attention, so columns before the first token cost
nothing.
"""

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from harness.tune import decode_attention

_NAMES = ("cache", "past_key_values")  # of the cache among a model's inputs
_SLACK = 64  # columns beyond the longest row, at least; all are moved once per as many
_SLACK_SHARE = 4  # and at least the longest row's divided by this


class _SlotLayer(DynamicLayer):
    """Keys and values of one layer, [rows, heads, columns, dim], allocated once and written in place."""

    keys: Any
    values: Any
    dtype: torch.dtype

    def __init__(self, slots: "Slots"):
        super().__init__()
        self.slots = slots

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple:
        """Writes the next tokens of every live row; returns what these rows have, as transformers' caches do."""
        slots, end = self.slots, self.slots.end + key_states.shape[2]
        for tensor, states in ((self.keys, key_states), (self.values, value_states)):
            tensor[: slots.live, :, slots.end : end] = states
        columns = slice(slots.begin, end)
        return self.keys[: slots.live, :, columns], self.values[: slots.live, :, columns]

    def get_seq_length(self) -> int:
        return self.slots.end - self.slots.begin

    def get_mask_sizes(self, query_length: Any) -> tuple[int, int]:
        return self.get_seq_length() + self.slots.written, 0


class Slots:
    """A model with room for `rows` rows of up to `longest` tokens, prompt and answer, in its cache.

    `model` has plain attention; `own_attention` gives a context in which it reads whole prompts by a faster one that
    takes no mask, or None. Rows 0 to `live` - 1 are in use. Unless `gaps`, no masked column may stand between a row's
    tokens: where attention counts columns, as in a window, they move together after every step. `grouped`: heads that
    share keys attend together (harness.tune.decode_attention).
    """

    def __init__(
        self,
        model: Any,
        rows: int,
        longest: int,
        *,
        own_attention: Callable[[], AbstractContextManager] | None = None,
        slack: int | None = None,
        gaps: bool = False,
        grouped: bool = False,
    ):
        self.model, self.own_attention, self.gaps = model, own_attention, gaps
        self.grouped = decode_attention.configs_of(model) if grouped else []
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.takes = inspect.signature(base.forward).parameters
        self.name = next((name for name in _NAMES if name in self.takes), "")
        if not self.name:
            raise LookupError("the model takes no cache")
        self.device = next(model.parameters()).device
        layer: Any = partial(_SlotLayer, self)
        self.cache: Any = Cache(layer_class_to_replicate=layer)
        self.slack = slack if slack is not None else max(_SLACK, longest // _SLACK_SHARE)
        self.rows, self.longest, self.width = rows, longest, longest + self.slack
        self.live, self.end = 0, 0
        self.written = 0  # columns of the last step
        self.starts: list[int] = []  # the column of each live row's first token
        self.lengths: list[int] = []  # tokens of each live row
        self.mask = torch.zeros(rows, self.width, dtype=torch.int64, device=self.device)

    @property
    def begin(self) -> int:
        """The first column that a live row needs."""
        return min(self.starts, default=self.end)

    def read(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Reads prompts of equal length into free rows: the logits [prompts, vocabulary] of the token after each.

        No prompt may be longer than the longest live row.
        """
        ids = torch.tensor([list(prompt) for prompt in prompts], device=self.device)
        count, tokens = ids.shape
        cache: Any = DynamicCache()
        positions = torch.arange(tokens, device=self.device)[None].expand(count, -1)
        mask = None if self.own_attention else torch.ones_like(ids)
        with self.own_attention() if self.own_attention else nullcontext():
            logits = self._forward(ids, positions, mask, cache)
        if not self.live:
            self.end = tokens
        rows, start = slice(self.live, self.live + count), self.end - tokens
        for i, layer in enumerate(cache.layers):
            self._place(i, layer.keys, layer.values, rows, start)
        self.mask[rows, :start] = 0
        self.mask[rows, start : self.end] = 1
        self.live, self.starts = self.live + count, self.starts + [start] * count
        self.lengths += [tokens] * count
        return logits[:, -1]

    def step(self, tokens: Sequence[Sequence[int]]) -> torch.Tensor:
        """The logits [live, new, vocabulary] after each of the next `tokens` of every live row, at most `new` of them;
        beyond a row's last one they mean nothing. Until the next step, `keep` says what stays."""
        self.written = new = max(map(len, tokens))
        # Not after every step that takes tokens back, where gaps do no harm.
        if not self.gaps or self.end + new > self.width:
            self._pack()
        if self.end + new > self.width:
            raise ValueError("a row is longer than the cache")
        self.mask[: self.live, self.end : self.end + new] = 1
        ids = torch.tensor([[*row, *[0] * (new - len(row))] for row in tokens], device=self.device)
        # What fills up a row stays within it: there may be no position after its last one.
        rows = zip(self.lengths, map(len, tokens), strict=True)
        positions = [[length + min(n, own - 1) for n in range(new)] for length, own in rows]
        mask = self.mask[: self.live, self.begin : self.end + new]
        with decode_attention.grouped(self.grouped):
            logits = self._forward(ids, torch.tensor(positions, device=self.device), mask, self.cache)
        self.end += new
        return logits[:, -new:]

    def keep(self, counts: Sequence[int]) -> None:
        """Of the tokens of the last step, each live row keeps the first ones, as many as `counts` says."""
        most = max(counts)
        self.end -= self.written - most
        self.lengths = [length + n for length, n in zip(self.lengths, counts, strict=True)]
        if min(counts) < most:
            kept = torch.arange(most, device=self.device) < torch.tensor(counts, device=self.device)[:, None]
            self.mask[: self.live, self.end - most : self.end] = kept.to(self.mask)

    def rewind(self, row: int, tokens: int) -> None:
        """Takes the last `tokens` out of a row."""
        if tokens:
            self.lengths[row] -= tokens
            mask = self.mask[row, : self.end]
            mask *= mask.cumsum(0) <= self.lengths[row]

    def leave(self, row: int) -> None:
        """Takes a row out; the last live row gets its number."""
        last = self.live - 1
        if row != last:
            for tensor in self._tensors():
                tensor[row] = tensor[last]
            self.mask[row], self.starts[row] = self.mask[last].clone(), self.starts[last]
            self.lengths[row] = self.lengths[last]
        self.live, self.starts, self.lengths = last, self.starts[:last], self.lengths[:last]

    def resize(self, rows: int, longest: int) -> None:
        """Room for other numbers of rows and tokens; live rows stay. One layer's memory is held twice meanwhile."""
        self._pack()
        begin, end, live = self.begin, self.end, self.live
        self.slack = max(_SLACK, longest // _SLACK_SHARE)
        width = longest + self.slack

        def moved(tensor: torch.Tensor, dim: int) -> torch.Tensor:
            shape = [rows, *tensor.shape[1:]]
            shape[dim] = width
            new = tensor.new_zeros(shape)
            new.narrow(0, 0, live).narrow(dim, 0, end - begin).copy_(
                tensor.narrow(0, 0, live).narrow(dim, begin, end - begin)
            )
            return new

        for layer in self.cache.layers:
            layer.keys = moved(layer.keys, 2)
            layer.values = moved(layer.values, 2)
        self.mask = moved(self.mask, 1)
        self.rows, self.longest, self.width, self.end = rows, longest, width, end - begin
        self.starts = [start - begin for start in self.starts]

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None, cache: Any) -> Any:
        logits = ids.shape[1] if cache is self.cache else 1  # of a prompt those after its last token
        inputs = {"input_ids": ids, "position_ids": positions, "attention_mask": mask, "use_cache": True,
                  "logits_to_keep": logits, self.name: cache}  # fmt: skip
        return self.model(**{name: value for name, value in inputs.items() if name in self.takes}).logits

    def _place(self, index: int, keys: torch.Tensor, values: torch.Tensor, rows: slice, start: int) -> None:
        """Copies what was read into `rows`; columns before `start` are zero, for a mask does not stop a NaN."""
        layers = self.cache.layers
        if len(layers) <= index:
            layer = _SlotLayer(self)
            layer.dtype, layer.device, layer.is_initialized = keys.dtype, keys.device, True
            layer.keys, layer.values = (
                part.new_zeros(self.rows, part.shape[1], self.width, part.shape[3]) for part in (keys, values)
            )
            layers.append(layer)
        for tensor, part in ((layers[index].keys, keys), (layers[index].values, values)):
            tensor[rows, :, :start] = 0
            tensor[rows, :, start : self.end] = part

    def _pack(self) -> None:
        """Moves every live row's tokens to the left, so that all end at one column and none is between them."""
        live, columns = self.live, max(self.lengths, default=0)
        ends = {start + length for start, length in zip(self.starts, self.lengths, strict=True)}
        if not live or (columns == self.end and ends == {columns}):
            return
        # In a stable order of the mask those with a token come last.
        order = self.mask[:live, : self.end].argsort(dim=1, stable=True)[:, -columns:]
        rows = torch.arange(live, device=self.device)[:, None]
        for tensor in self._tensors():
            tensor[:live, :, :columns] = tensor[rows, :, order].transpose(1, 2)
        self.starts = [columns - length for length in self.lengths]
        starts = torch.tensor(self.starts, device=self.device)[:, None]
        self.mask[:live, :columns] = (torch.arange(columns, device=self.device) >= starts).to(self.mask)
        self.end = columns

    def _tensors(self) -> list[torch.Tensor]:
        return [tensor for layer in self.cache.layers for tensor in (layer.keys, layer.values)]
