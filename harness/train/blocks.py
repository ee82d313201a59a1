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
    shape.
    """
    batch, heads, tokens, dim = query.shape
    groups = heads // key.shape[1]
    grouped = query.reshape(-1, groups, tokens, dim)
    out = _Blocks.apply(grouped, key.flatten(0, 1), value.flatten(0, 1), scaling, window)
    return out.view(batch, heads, tokens, dim)


class _Blocks(torch.autograd.Function):
    """query [batch x kv_heads, groups, tokens, dim], key and value [batch x kv_heads, tokens, dim]."""

    @staticmethod
    def forward(ctx, query, key, value, scaling, window):
        count, groups, tokens, dim = query.shape
        out, kept = torch.empty_like(query), []
        keeps = count * groups * tokens * (tokens + ROWS) // 2 <= _MOST_KEPT and any(ctx.needs_input_grad)
        for low, start, end in _spans(tokens, window):
            rows = query[:, :, start:end].reshape(count, -1, dim)
            weights = _weights(rows, key[:, low:end], scaling, window, groups, start - low)
            out[:, :, start:end] = torch.bmm(weights, value[:, low:end]).view(count, groups, end - start, dim)
            if keeps:
                kept.append(weights)
        ctx.save_for_backward(query, key, value, out, *kept)
        ctx.scaling, ctx.window = scaling, window
        return out

    @staticmethod
    def backward(ctx, grad):
        query, key, value, out, *kept = ctx.saved_tensors
        count, groups, tokens, dim = query.shape
        for_query, for_key, for_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        inner = (grad * out).sum(-1, keepdim=True)
        for number, (low, start, end) in enumerate(_spans(tokens, ctx.window)):
            rows = query[:, :, start:end].reshape(count, -1, dim)
            slopes = grad[:, :, start:end].reshape(count, -1, dim)
            seen = key[:, low:end]
            weights = kept[number] if kept else _weights(rows, seen, ctx.scaling, ctx.window, groups, start - low)
            scores = torch.bmm(slopes, value[:, low:end].transpose(1, 2))
            scores.sub_(inner[:, :, start:end].reshape(count, -1, 1)).mul_(weights).mul_(ctx.scaling)
            for_query[:, :, start:end] = torch.bmm(scores, seen).view(count, groups, end - start, dim)
            for_key[:, low:end].baddbmm_(scores.transpose(1, 2), rows)
            for_value[:, low:end].baddbmm_(weights.transpose(1, 2), slopes)
        return for_query, for_key, for_value, None, None


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
