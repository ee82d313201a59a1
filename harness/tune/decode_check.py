"""In which way an architecture is decoded: the fastest that gives what the whole sequence alone would give.

Caches of states, positions that a model counts itself, masks that it ignores: what goes wrong is no error.
So a few narrow layers of the config (harness.train.small_copy) are decoded, beyond every window, in one way after the
other, and held against forwards of each sequence alone. The answer is kept in the user's cache.
"""

import hashlib
import json
from contextlib import suppress
from functools import partial
from typing import Any

import torch
import transformers
from transformers import DynamicCache

from harness.files import read_cache, write_cache
from harness.hardware.environment import versions
from harness.records.stored import from_stored, to_stored
from harness.train.check import use_plain_attention
from harness.train.compat import quiet
from harness.train.small_copy import WINDOW, bare, small_copies
from harness.tune.decode_slots import Slots
from harness.tune.decode_steps import ANY, EQUAL, ONE, Steps, Way, left_padded

RULE = 5  # of the check: raised when it checks more, so that kept answers are not used
_SLOWEST = Way(cached=False, rows=ONE)  # right by definition
_WAYS = (
    Way(static=True, gaps=True, grouped=True), Way(static=True, grouped=True), Way(static=True, gaps=True),
    Way(static=True), Way(), Way(leaves=False), Way(rows=EQUAL), Way(rows=EQUAL, leaves=False), Way(rows=ONE),
    Way(cached=False), Way(cached=False, rows=EQUAL),
)  # fmt: skip
_PROMPTS = (2 * WINDOW + 5, WINDOW + 7, 3, 2 * WINDOW + 5)  # tokens; the first and the last are of equal length
_STEPS = 6
_TOLERANCE = 1e-4  # of the largest logit
_kept: dict[str, Way] = {}


def way_of(config: transformers.PretrainedConfig) -> Way:
    """The way for `config`'s models, from the cache or checked now (seconds)."""
    text = json.dumps([bare(config), versions(), RULE], sort_keys=True, default=str)
    name = f"decoding/{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    if name not in _kept:
        if (stored := read_cache(name, partial(from_stored, kind=Way))) is not None:
            return _kept.setdefault(name, stored)
        _kept[name] = check(config)
        write_cache(name, to_stored(_kept[name]))
    return _kept[name]


@torch.no_grad()
def check(config: transformers.PretrainedConfig) -> Way:
    """The check itself; without a small copy the slowest way."""
    for model in small_copies(config):
        try:
            with quiet():
                use_plain_attention(model)
                return _fastest(model)
        except Exception:  # a size that this architecture does not take; the next copy may be wider
            continue
    return _SLOWEST


def _fastest(model: Any) -> Way:
    # Random sequences, and the logits after each of their last tokens by a forward of all before.
    generator = torch.Generator().manual_seed(0)
    vocab_size = model.get_input_embeddings().weight.shape[0]
    sequences = [torch.randint(3, vocab_size, (n + _STEPS,), generator=generator).tolist() for n in _PROMPTS]
    expected = torch.stack([torch.stack([_alone(model, ids[: n + k]) for k in range(_STEPS)])
                            for n, ids in zip(_PROMPTS, sequences, strict=True)])  # fmt: skip
    # What masks a padded token from a state here need not do so in the kernels of a device.
    states = _has_states(model, sequences[0])
    for way in (way for way in _WAYS if not (states and way.rows == ANY)):
        try:
            if (_right_static if way.static else _right)(model, way, sequences, expected):
                return way
        except Exception:  # a way that the model does not know
            continue
    return _SLOWEST


def _alone(model: Any, ids: list[int]) -> torch.Tensor:
    inputs = torch.tensor([ids])
    return Steps(model, inputs, torch.ones_like(inputs), _SLOWEST).logits()[0]


def _has_states(model: Any, ids: list[int]) -> bool:
    """Whether the model remembers more than keys and values: states, into which padding would run."""
    if getattr(model, "_is_stateful", False):
        return True
    inputs = torch.tensor([ids])
    steps = Steps(model, inputs, torch.ones_like(inputs), Way())
    with suppress(Exception):  # a model without a cache, which then has no states either
        steps.logits()
    caches = steps.cache.values()
    layers = [layer for cache in caches for layer in getattr(cache, "layers", [cache])]
    return any(type(cache) is not DynamicCache for cache in caches) or any(hasattr(x, "conv_states") for x in layers)


def _right_static(model: Any, way: Way, sequences: list[list[int]], expected: torch.Tensor) -> bool:
    """Whether rows of a static cache have their own logits: read together and later, with tokens that were taken back,
    moved, and in a new cache."""
    slots = Slots(model, 3, max(_PROMPTS) + 1, slack=3, gaps=way.gaps, grouped=way.grouped)
    rows: list[list[int]] = []  # of each live row: the sequence, and the tokens that it has beyond its prompt

    def read(*group: int) -> bool:
        rows.extend([i, 0] for i in group)
        return _close(slots.read([sequences[i][: _PROMPTS[i]] for i in group]), rows[-len(group) :], expected)

    def step(*right: int) -> bool:
        """A step in which each row keeps the first of its tokens, as many as `right` says; the others are wrong."""
        tokens = [sequences[i][_PROMPTS[i] + k :][:n] + [2] * (max(right) - n)
                  for (i, k), n in zip(rows, right, strict=True)]  # fmt: skip
        logits = slots.step(tokens)
        slots.keep(right)
        places = [[i, k + n] for (i, k), count in zip(rows, right, strict=True) for n in range(1, count + 1)]
        rows[:] = [[i, k + n] for (i, k), n in zip(rows, right, strict=True)]
        return _close(torch.cat([row[:n] for row, n in zip(logits, right, strict=True)]), places, expected)

    def leave(row: int) -> None:
        slots.leave(row)
        rows[row] = rows[-1]
        rows.pop()

    # The third step finds the cache full, but for what was taken back.
    if not (read(0, 3) and read(1) and step(1, 2, 1) and step(2, 1, 2) and step(1, 1, 1)):
        return False
    # The two long rows leave, the shortest comes, and the columns are moved.
    leave(0)
    leave(1)
    if not (read(2) and step(1, 2)):
        return False
    slots.rewind(1, 1)
    rows[1][1] -= 1
    leave(0)
    slots.resize(2, 2 * _STEPS)
    return step(2) and step(1)


def _close(logits: torch.Tensor, places: list[list[int]], expected: torch.Tensor) -> bool:
    own = torch.stack([expected[i, k] for i, k in places])
    return bool((logits - own).abs().max() <= _TOLERANCE * expected.abs().max())


def _right(model: Any, way: Way, sequences: list[list[int]], expected: torch.Tensor) -> bool:
    rows = {ANY: [0, 1, 2, 3], EQUAL: [0, 3], ONE: [0]}[way.rows]
    prompts = [sequences[i][: _PROMPTS[i]] for i in rows]
    steps = Steps(model, *left_padded(prompts, sequences[0][0], torch.device("cpu")), way)
    for k in range(_STEPS):
        logits = steps.logits()
        if not _close(logits, [[i, k] for i in rows], expected):
            return False
        tokens = torch.tensor([sequences[i][_PROMPTS[i] + k] for i in rows])
        steps.append(tokens, torch.ones(len(rows), dtype=torch.bool))
        # Half of the rows leave after the second step.
        if k == 1 and way.leaves and len(rows) > 1:
            rows = rows[1::2]
            steps.keep(torch.arange(1, 2 * len(rows), 2))
    return True
