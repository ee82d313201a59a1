"""Greedy decoding of many prompts in batches, and the loss of given answers. Works on tokens and knows no ARC."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import DynamicCache

from harness.train.batches import Batch
from harness.train.compat import quiet
from harness.train.losses import answer_loss
from harness.train.ops import attention

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

    Decodes with a KV cache, in batches of prompts of similar length. A batch has at most `batch_tokens` tokens,
    answers included; the default keeps the cache under a quarter of a GiB, which gives a small model large batches. An
    answer whose beginning is `hopeless` is abandoned. `on_batch` receives (prompts answered, prompts in all).
    """
    device = next(model.parameters()).device
    batch_tokens = batch_tokens or max(2048, min(32768, _CACHE_BYTES // _cache_bytes_per_token(model)))
    end = tokenizer.eos_token_id
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end
    texts, finished = [""] * len(prompts), 0
    base = model.get_base_model()
    model.eval()
    base.set_attn_implementation("sdpa")  # padded batches need masks
    try:
        with torch.no_grad(), quiet():
            for members in _batches(prompts, max_new_tokens, batch_tokens):
                # Left padding: the next token of every row stands at the right end.
                ids, mask = _left_padded([prompts[i] for i in members], pad, device)
                limits = [max_new_tokens[i] for i in members]
                answers = _decode(model, ids, mask, limits, end, lambda ids: hopeless(tokenizer.decode(ids)))
                for i, answer in zip(members, answers, strict=True):
                    texts[i] = tokenizer.decode(answer[: answer.index(end)]) if end in answer else ""
                finished += len(members)
                on_batch(finished, len(prompts))
    finally:
        # Back to our attention, for the training that may follow.
        base.set_attn_implementation(attention.NAME)
        with quiet():
            model.train()
    return texts


def _decode(
    model: Any,
    ids: torch.Tensor,
    mask: torch.Tensor,
    max_new_tokens: Sequence[int],
    end: int,
    hopeless: Callable[[list[int]], bool],
) -> list[list[int]]:
    """The most likely tokens after each row of `ids`, until `end` or the row's `max_new_tokens`.

    `ids` and `mask`: int64 [rows, longest prompt]. Finished rows leave the batch and its cache, so that one endless
    answer does not cost the time of the whole batch.
    """
    cache = DynamicCache(config=model.get_base_model().config)
    answers: list[list[int]] = [[] for _ in max_new_tokens]
    live = list(range(len(max_new_tokens)))  # the answer that each row of the batch belongs to
    # Positions count from the first real token; the first step takes the whole prompts, later ones a token per row.
    positions = mask.cumsum(1) - 1
    step = {"input_ids": ids, "position_ids": positions.clamp(min=0)}
    positions = positions[:, -1:]
    while live:
        logits = model(**step, attention_mask=mask, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        tokens = logits[:, -1].argmax(-1)
        unfinished = []
        for row, token in enumerate(tokens.tolist()):
            answer, limit = answers[live[row]], max_new_tokens[live[row]]
            # A finished row may still be in the batch (see below); it gets no more tokens.
            if len(answer) < limit and (not answer or answer[-1] != end):
                answer.append(token)
            lost = len(answer) % _LOOK_EVERY == 0 and hopeless(answer)
            if answer[-1] != end and len(answer) < limit and not lost:
                unfinished.append(row)
        if not unfinished:
            break
        # Removing rows copies the cache, so wait until a fifth of them is finished.
        if len(unfinished) <= 0.8 * len(live):
            rows = torch.tensor(unfinished, device=ids.device)
            cache.batch_select_indices(rows)
            tokens, mask, positions = tokens[rows], mask[rows], positions[rows]
            live = [live[row] for row in unfinished]
        positions = positions + 1
        mask = torch.cat([mask, mask.new_ones(len(live), 1)], 1)
        step = {"input_ids": tokens[:, None], "position_ids": positions}
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
    # Configs without grouped-query attention or without a head size of their own leave these out.
    config = model.get_base_model().config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * width * model.get_input_embeddings().weight.element_size()


def _batches(prompts: Sequence[Sequence[int]], max_new_tokens: Sequence[int], tokens: int) -> list[list[int]]:
    """Indices of prompts in batches, longest first, so that a lack of memory shows at once."""
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]) - max_new_tokens[i])
    out: list[list[int]] = []
    for i in order:
        # A batch is as wide as its first row, the longest.
        widest = len(prompts[out[-1][0]]) + max_new_tokens[out[-1][0]] if out else 0
        if out and (len(out[-1]) + 1) * widest <= tokens:
            out[-1].append(i)
        else:
            out.append([i])
    return out


def _left_padded(rows: Sequence[Sequence[int]], pad: int, device) -> tuple[torch.Tensor, torch.Tensor]:
    """ids and mask, int64 [rows, longest]."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros(len(rows), width, dtype=torch.int64)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.tensor(row)
        mask[i, width - len(row) :] = 1
    return ids.to(device), mask.to(device)
