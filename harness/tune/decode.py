"""Greedy decoding of many prompts in batches, and the loss of given answers. Works on tokens and knows no ARC."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import torch

from harness.train.batches import Batch
from harness.train.compat import quiet
from harness.train.losses import answer_loss
from harness.train.special_tokens import end_ids
from harness.tune.decode_check import way_of
from harness.tune.decode_steps import ANY, EQUAL, ONE, Steps, Way, left_padded, plain_attention

_CACHE_BYTES = 2**28  # of keys and values in a batch
_LOOK_EVERY = 16  # tokens between two checks for a hopeless answer


def greedy(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: Sequence[int],
    *,
    hopeless: Callable[[str], bool] = lambda text: False,
    batch_tokens: int | None = None,
    on_batch: Callable[[int, int], None] = lambda finished, total: None,
) -> list[str]:
    """The text that `model`, a PeftModel, writes after each of `prompts` (token ids); "" where it did not end in time.

    Decodes in the way that the architecture allows (harness.tune.decode_check), as a rule with a cache, in batches of
    prompts of similar length. A batch has at most `batch_tokens` tokens, answers included; the default keeps the cache
    under a quarter of a GiB, which gives a small model large batches. An answer whose beginning is `hopeless` is
    abandoned. `on_batch` receives (prompts answered, prompts in all).
    """
    device = next(model.parameters()).device
    base = model.get_base_model()
    batch_tokens = batch_tokens or max(2048, min(32768, _CACHE_BYTES // _cache_bytes_per_token(model)))
    ends, pad = end_ids(tokenizer, base), tokenizer.eos_token_id  # padding is masked: any token with an embedding
    ways = _ways(base.config, prompts, max_new_tokens)
    texts, finished = [""] * len(prompts), 0
    model.eval()
    try:
        with torch.no_grad(), quiet(), plain_attention(model):
            for members in _batches(prompts, max_new_tokens, batch_tokens, ways):
                ids, mask = left_padded([prompts[i] for i in members], pad, device)
                steps, limits = Steps(model, ids, mask, ways[members[0]]), [max_new_tokens[i] for i in members]
                answers = _decode(steps, limits, ends, lambda ids: hopeless(tokenizer.decode(ids)))
                for i, answer in zip(members, answers, strict=True):
                    texts[i] = tokenizer.decode(answer[:-1]) if answer[-1] in ends else ""
                finished += len(members)
                on_batch(finished, len(prompts))
    finally:
        with quiet():
            model.train()
    return texts


def _decode(
    steps: Steps, max_new_tokens: Sequence[int], ends: Collection[int], hopeless: Callable[[list[int]], bool]
) -> list[list[int]]:
    """The most likely tokens after each row of `steps`, until one of `ends` or the row's `max_new_tokens`.

    Finished rows leave the batch and its cache, so that one endless answer does not cost the time of the whole batch.
    """
    answers: list[list[int]] = [[] for _ in max_new_tokens]
    rows = list(range(len(max_new_tokens)))  # the answer that each row of the batch belongs to
    live = set(rows)
    while live:
        tokens = steps.logits().argmax(-1)
        for i, token in zip(rows, tokens.tolist(), strict=True):
            # A finished row may still be in the batch (see below); it gets no more tokens.
            if i in live:
                answers[i].append(token)
                lost = len(answers[i]) % _LOOK_EVERY == 0 and hopeless(answers[i])
                if token in ends or len(answers[i]) == max_new_tokens[i] or lost:
                    live.discard(i)
        if not live:
            break
        steps.append(tokens, torch.tensor([i in live for i in rows], device=tokens.device))
        # Removing rows copies the cache, so wait until a fifth of them is finished.
        if steps.way.leaves and len(live) <= 0.8 * len(rows):
            kept = [row for row, i in enumerate(rows) if i in live]
            steps.keep(torch.tensor(kept, device=tokens.device))
            rows = [rows[row] for row in kept]
    return answers


def losses(model: Any, sequences: Sequence[tuple[Sequence[int], int]]) -> list[tuple[float, int]]:
    """(nats per token, answer tokens) for each of `sequences`, which are (token ids, answer tokens at their end)."""
    device = next(model.parameters()).device
    model.eval()
    with torch.no_grad():
        pairs = [(answer_loss(model, Batch(torch.tensor([ids], device=device), n)).item(), n) for ids, n in sequences]
    with quiet():
        model.train()
    return pairs


def _cache_bytes_per_token(model: Any) -> int:
    """Bytes of keys and values in all layers for one token, in the dtype of the embeddings."""
    # Configs without grouped-query attention or without a head size of their own leave these out; those of models
    # with states may have no heads at all.
    config = model.get_base_model().config.get_text_config()
    embedding = model.get_input_embeddings().weight
    hidden = getattr(config, "hidden_size", None) or embedding.shape[1]
    all_heads = getattr(config, "num_attention_heads", None)
    all_heads = all_heads if isinstance(all_heads, int) and all_heads else 1
    heads = getattr(config, "num_key_value_heads", None)
    width = getattr(config, "head_dim", None)
    heads = heads if isinstance(heads, int) and heads else all_heads
    width = width if isinstance(width, int) and width else hidden // all_heads
    return 2 * config.num_hidden_layers * heads * width * embedding.element_size()


def _ways(config: Any, prompts: Sequence[Sequence[int]], max_new_tokens: Sequence[int]) -> list[Way]:
    """The way of each prompt: that of the architecture, unless positions mean something else beyond some length."""
    way = way_of(config)
    text = config.get_text_config()
    ropes = getattr(text, "rope_parameters", None) or {}
    ropes = [rope for rope in (ropes, *ropes.values()) if isinstance(rope, dict) and "rope_type" in rope]
    changing = [rope for rope in ropes if rope["rope_type"] in ("longrope", "dynamic")]
    ways = [way] * len(prompts)
    for rope in changing:
        longest = getattr(text, "original_max_position_embeddings", None) or text.max_position_embeddings
        limit = rope.get("original_max_position_embeddings") or longest
        for i, (prompt, new_tokens) in enumerate(zip(prompts, max_new_tokens, strict=True)):
            # Keys in the cache have the old positions. With a longrope all of a longer prompt have the new ones.
            crosses = len(prompt) <= limit if rope["rope_type"] == "longrope" else True
            if len(prompt) + new_tokens > limit and crosses:
                ways[i] = Way(cached=False, rows=EQUAL if way.rows != ONE else ONE)
            elif len(prompt) > limit:
                ways[i] = replace(way, beyond=True)
    return ways


def _batches(
    prompts: Sequence[Sequence[int]], max_new_tokens: Sequence[int], tokens: int, ways: Sequence[Way]
) -> list[list[int]]:
    """Indices of prompts in batches, longest first, so that a lack of memory shows at once."""
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]) - max_new_tokens[i])
    # Prompts that may not share a batch are apart: of another way, or of another length where that matters.
    groups: dict[tuple, list[int]] = {}
    for i in order:
        alone = {ANY: 0, EQUAL: len(prompts[i]), ONE: i}[ways[i].rows]
        groups.setdefault((ways[i], alone), []).append(i)
    out: list[list[int]] = []
    for members in groups.values():
        for i in members:
            # A batch is as wide as its first row, the longest.
            first = out[-1][0] if out and out[-1][0] in members else None
            widest = 0 if first is None else len(prompts[first]) + max_new_tokens[first]
            if first is not None and (len(out[-1]) + 1) * widest <= tokens:
                out[-1].append(i)
            else:
                out.append([i])
    return out
