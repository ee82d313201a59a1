"""Causal attention as products of blocks of rows, forward and backward: what is fastest on a CPU.

torch's fused kernel for the CPU does not leave out what lies above the diagonal and hands small products one by one to
the threads. Here a block of queries meets only the keys that it may see, all heads that share a key in one product;
the softmax's backward is written out as FlashAttention does (Dao et al. 2022, section 3.1):
dS = P * (dP - rowsum(dO * O)).
"""

from functools import lru_cache

import torch

ROWS = 128
# Of a layer's attention weights, so many are kept for the backward; beyond, they are computed again.
_MOST_KEPT = 2**21


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, window: int | None = None
) -> torch.Tensor:
    """Attention of `query` [batch, heads, tokens, dim] over `key` and `value` [batch, kv_heads, tokens, dim].

    A token sees itself and those before it, with `window` itself and the window - 1 before it. Returns the query's
    shape, laid out as [batch, tokens, heads, dim], which is what the next layer takes.
    """
    return _Blocks.apply(query, key, value, scaling, window)


class _Blocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, scaling, window):
        batch, heads, tokens, dim = query.shape
        kv_heads, groups = key.shape[1], heads // key.shape[1]
        out, kept = query.new_empty(batch, tokens, heads, dim).transpose(1, 2), []
        queries, outs, keys, values = _grouped(query, kv_heads), _grouped(out, kv_heads), _flat(key), _flat(value)
        keeps = batch * heads * tokens * (tokens + ROWS) // 2 <= _MOST_KEPT and any(ctx.needs_input_grad)
        for low, start, end in _spans(tokens, window):
            rows = _block(queries, start, end)
            weights = _weights(rows, keys[:, low:end], scaling, window, groups, start - low)
            _set_block(outs, start, end, torch.bmm(weights, values[:, low:end]))
            if keeps:
                kept.append(weights)
        ctx.save_for_backward(query, key, value, out, *kept)
        ctx.scaling, ctx.max_context = scaling, window
        return out

    @staticmethod
    def backward(ctx, grad):
        query, key, value, out, *kept = ctx.saved_tensors
        tokens, kv_heads, groups = query.shape[2], key.shape[1], query.shape[1] // key.shape[1]
        for_query = torch.empty_like(query)
        queries, for_queries, grads = (_grouped(part, kv_heads) for part in (query, for_query, grad))
        inner = _grouped((grad * out).sum(-1, keepdim=True), kv_heads)
        keys, values = _flat(key), _flat(value)
        for_keys, for_values = torch.zeros_like(keys), torch.zeros_like(values)
        for number, (low, start, end) in enumerate(_spans(tokens, ctx.max_context)):
            rows, slopes, seen = _block(queries, start, end), _block(grads, start, end), keys[:, low:end]
            weights = kept[number] if kept else _weights(rows, seen, ctx.scaling, ctx.max_context, groups, start - low)
            scores = torch.bmm(slopes, values[:, low:end].transpose(1, 2))
            scores.sub_(_block(inner, start, end)).mul_(weights).mul_(ctx.scaling)
            _set_block(for_queries, start, end, torch.bmm(scores, seen))
            for_keys[:, low:end].baddbmm_(scores.transpose(1, 2), rows)
            for_values[:, low:end].baddbmm_(weights.transpose(1, 2), slopes)
        return for_query, for_keys.view_as(key), for_values.view_as(value), None, None


def _grouped(part: torch.Tensor, kv_heads: int) -> torch.Tensor:
    """[batch, kv_heads, heads that share a key, tokens, dim], a view."""
    return part.unflatten(1, (kv_heads, -1))


def _flat(part: torch.Tensor) -> torch.Tensor:
    """[batch x kv_heads, tokens, dim] of keys or values."""
    return part.flatten(0, 1)


def _block(grouped: torch.Tensor, start: int, end: int) -> torch.Tensor:
    """[batch x kv_heads, heads that share a key x rows, dim] of the rows from `start` to `end`."""
    part = grouped[..., start:end, :]
    return part.reshape(part.shape[0] * part.shape[1], -1, part.shape[-1])


def _set_block(grouped: torch.Tensor, start: int, end: int, found: torch.Tensor) -> None:
    part = grouped[..., start:end, :]
    part.copy_(found.view(part.shape))


def _spans(tokens: int, window: int | None) -> list[tuple[int, int, int]]:
    """(first key, first query, end of both) of every block."""
    starts = range(0, tokens, ROWS)
    return [(max(0, start - window + 1) if window else 0, start, min(start + ROWS, tokens)) for start in starts]


def _weights(
    rows: torch.Tensor, key: torch.Tensor, scaling: float, window: int | None, groups: int, ahead: int
) -> torch.Tensor:
    """The softmax of [count, groups x rows, keys]; the first row stands at key `ahead`."""
    scores = torch.baddbmm(rows.new_empty(1, 1, 1), rows, key.transpose(1, 2), beta=0, alpha=scaling)
    count, many, keys = scores.shape
    by_group = scores.view(count, groups, many // groups, keys)
    if window:
        by_group += mask(many // groups, keys, ahead, window, rows.dtype, rows.device)
    else:  # only the block on the diagonal has something to hide
        by_group[..., ahead:] += mask(many // groups, keys - ahead, 0, None, rows.dtype, rows.device)
    return torch.softmax(scores, -1)


@lru_cache(maxsize=64)
def mask(
    rows: int, keys: int, ahead: int, window: int | None, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """[rows, keys] to add: -inf where a row, which stands at key `ahead` + its number, does not see the key."""
    at = torch.arange(max(rows, keys), device=device)
    behind = at[:rows, None] + ahead - at[None, :keys]
    hidden = behind < 0 if window is None else (behind < 0) | (behind >= window)
    return torch.zeros(rows, keys, dtype=dtype, device=device).masked_fill_(hidden, float("-inf"))
