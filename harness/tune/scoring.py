"""The log-likelihood of given answers to a question: the question is read once, and all answers attend to its cache."""

import inspect
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, Final

import torch
from transformers import DynamicCache

from harness.train.check import use_plain_attention
from harness.train.compat import quiet
from harness.train.small_copy import WINDOW, bare, small_copies
from harness.tune import decode_attention
from harness.tune.decode import answering, cache_size_of, free_bytes
from harness.tune.decode_batches import Room, TokenLimit, ways_of
from harness.tune.decode_check import way_of

Question = tuple[Sequence[int], Sequence[Sequence[int]]]  # token ids of a prompt, and of every answer to it
_CACHES: Final = ("cache", "past_key_values")  # names among a model's inputs
_LOGITS = 1 << 26  # held at once: answers x tokens x vocabulary
_TOLERANCE = 1e-4  # of the largest log-likelihood, in the check
_shares: dict[str, bool] = {}


def log_likelihoods(
    model: Any,
    questions: Sequence[Question],
    *,
    limit: TokenLimit | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> list[list[float] | None]:
    """Of every answer to each of `questions`: the sum of its tokens' log-probabilities, in nats, in the model's whole
    vocabulary; None of a question that `stop`, once true, left without. `model` is a PeftModel; an answer has its
    end-of-text token.

    Where an architecture's cache is not shown to give what the whole sequence gives, every answer is read with its
    question. At most `limit` tokens are held at once, by default as many as the free memory allows. Where memory runs
    out all the same, half as many answers are read at once, and so on; raises torch.OutOfMemoryError where one is too
    much.
    """
    config, device = model.get_base_model().config, next(model.parameters()).device
    ways = ways_of(config, [prompt for prompt, _ in questions],
                   [max(map(len, answers), default=0) for _, answers in questions])  # fmt: skip
    shares = any(way.static for way in ways) and shares_prefixes(config)
    free, cache, limit = free_bytes(device), cache_size_of(model), limit or TokenLimit()
    vocab_size = model.get_input_embeddings().weight.shape[0]
    configs = decode_attention.configs_of(model)
    out: list[list[float] | None] = []
    with answering(model, free) as own_attention:
        while len(out) < len(questions):
            (prompt, answers), way = questions[len(out)], ways[len(out)]
            longest = max(map(len, answers), default=1)
            room = Room(cache, free, device.type, limit.tokens)
            together = shares and way.static
            count = min(len(answers), room.rows(len(prompt) + longest), max(1, _LOGITS // (longest * vocab_size)))
            if together:
                read = partial(_shared, model, prompt, answers, own_attention, grouped=configs if way.grouped else (),
                               at_once=max(1, count), stop=stop)  # fmt: skip
            else:
                read, count = partial(_one_by_one, model, prompt, answers, stop), 1
            if reason := limit.try_work(partial(_append, out, read)):
                limit.give_way(reason, count, len(prompt) + longest)
    return out


def _append(out: list, made: Callable[[], Any]) -> None:
    out.append(made())


def _one_by_one(
    model: Any, prompt: Sequence[int], answers: Sequence[Sequence[int]], stop: Callable[[], bool]
) -> list[float] | None:
    out: list[float] = []
    for answer in answers:
        if stop():
            return None
        out.append(_whole(model, prompt, answer))
    return out


def _whole(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> float:
    ids = torch.tensor([[*prompt, *answer]], device=next(model.parameters()).device)
    logits = _forward(model, {"input_ids": ids, "use_cache": False, "logits_to_keep": len(answer) + 1})
    return _sum(logits[0, -len(answer) - 1 : -1], ids[0, -len(answer) :])


def _shared(
    model: Any,
    prompt: Sequence[int],
    answers: Sequence[Sequence[int]],
    own_attention: Callable[[], Any] | None,
    *,
    at_once: int,
    grouped: Sequence[Any] = (),
    stop: Callable[[], bool] = lambda: False,
) -> list[float] | None:
    """As `_whole` of every answer, `at_once` of them beside each other. Answers are padded on the right, where no token
    before looks. By the configs `grouped` heads that share keys attend together."""
    if not answers:
        return []
    if stop():
        return None
    device, count = next(model.parameters()).device, len(prompt)
    name = next(name for name in _CACHES if name in _inputs_of(model))
    cache: Any = DynamicCache()
    with own_attention() if own_attention else nullcontext():
        ids = torch.tensor([list(prompt)], device=device)
        first = _forward(model, {"input_ids": ids, name: cache, "use_cache": True, "logits_to_keep": 1})[:, -1:]
    # Answers of like lengths beside each other.
    order = sorted(range(len(answers)), key=lambda i: -len(answers[i]))
    out = [0.0] * len(answers)
    for members in (order[i : i + at_once] for i in range(0, len(order), at_once)):
        if stop():
            return None
        longest = len(answers[members[0]])
        ids = torch.tensor([[*answers[i], *[0] * (longest - len(answers[i]))] for i in members], device=device)
        logits = first.expand(len(members), -1, -1)
        if longest > 1:
            copy = DynamicCache()
            for index, layer in enumerate(cache.layers):
                keys, values = (part.expand(len(members), -1, -1, -1) for part in (layer.keys, layer.values))
                copy.update(keys, values, index)
            places = torch.arange(count, count + longest - 1, device=device)[None].expand(len(members), -1)
            mask = torch.ones(len(members), count + longest - 1, dtype=torch.int64, device=device)
            inputs = {"input_ids": ids[:, :-1], "position_ids": places, "attention_mask": mask, name: copy}
            with decode_attention.grouped(grouped):
                logits = torch.cat([logits, _forward(model, {**inputs, "use_cache": True})], 1)
        for row, i in enumerate(members):
            out[i] = _sum(logits[row, : len(answers[i])], ids[row, : len(answers[i])])
    return out


def shares_prefixes(config: Any) -> bool:
    """Whether answers read beside each other after a cached question get what each gets alone: narrow layers of
    `config` are tried, beyond every window, once per process."""
    text = json.dumps(bare(config), sort_keys=True, default=str)
    if text not in _shares:
        _shares[text] = _check(config)
    return _shares[text]


@torch.no_grad()
def _check(config: Any) -> bool:
    generator = torch.Generator().manual_seed(0)
    for model in small_copies(config):
        vocab_size = model.get_input_embeddings().weight.shape[0]
        prompt, *answers = (torch.randint(3, vocab_size, (n,), generator=generator).tolist()
                            for n in (2 * WINDOW + 5, 1, 7, WINDOW + 3))  # fmt: skip
        try:
            with quiet():
                use_plain_attention(model)
                whole = [_whole(model, prompt, answer) for answer in answers]
                configs = decode_attention.configs_of(model) if way_of(config).grouped else ()
                together = _shared(model, prompt, answers, None, at_once=len(answers), grouped=configs) or []
        except Exception:  # a size or a cache that this architecture does not take; the next copy may be wider
            continue
        bound = _TOLERANCE * max(map(abs, whole))
        return all(abs(one - other) <= bound for one, other in zip(whole, together, strict=True))
    return False


def _inputs_of(model: Any) -> Any:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inspect.signature(base.forward).parameters


def _forward(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    takes = _inputs_of(model)
    return model(**{name: value for name, value in inputs.items() if name in takes}).logits


def _sum(logits: torch.Tensor, tokens: torch.Tensor) -> float:
    """Of `logits` [tokens, vocabulary] the log-probability of `tokens` int64 [tokens], in fp32."""
    return logits.float().log_softmax(-1).gather(-1, tokens[:, None]).sum(dtype=torch.float64).item()
