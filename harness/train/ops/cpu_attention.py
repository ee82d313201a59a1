"""Causal attention as products of blocks of rows, forward and backward: what is fastest on a CPU.

torch's fused kernel for the CPU computes what lies above the diagonal too, and hands small products one by one to the
threads. Here a block of queries is multiplied with the keys that it may see alone, all heads that share a key in one
product; the softmax's backward is FlashAttention's (Dao et al. 2022, section 3.1): dS = P * (dP - rowsum(dO * O)).
"""

from functools import lru_cache

import torch

ROWS = 128  # queries per block
# A layer with at most so many attention weights keeps them for the backward; else they are recomputed.
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
        # Heads that share a key are one product; weights are kept if all of a layer's are few.
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
        ctx.scaling, ctx.window = scaling, window
        return out

    @staticmethod
    def backward(ctx, grad):
        query, key, value, out, *kept = ctx.saved_tensors
        tokens, kv_heads, groups = query.shape[2], key.shape[1], query.shape[1] // key.shape[1]
        grad_query = torch.empty_like(query)
        queries, grad_queries, grads = (_grouped(part, kv_heads) for part in (query, grad_query, grad))
        # rowsum(dO * O), for all blocks at once.
        inner = _grouped((grad * out).sum(-1, keepdim=True), kv_heads)
        keys, values = _flat(key), _flat(value)
        grad_keys, grad_values = torch.zeros_like(keys), torch.zeros_like(values)
        for number, (low, start, end) in enumerate(_spans(tokens, ctx.window)):
            rows, grad_rows, visible = _block(queries, start, end), _block(grads, start, end), keys[:, low:end]
            weights = kept[number] if kept else _weights(rows, visible, ctx.scaling, ctx.window, groups, start - low)
            # dS = P * (dP - rowsum(dO * O)), with the scores' scaling.
            grad_scores = torch.bmm(grad_rows, values[:, low:end].transpose(1, 2))
            grad_scores.sub_(_block(inner, start, end)).mul_(weights).mul_(ctx.scaling)
            _set_block(grad_queries, start, end, torch.bmm(grad_scores, visible))
            # Keys and values collect from every block that saw them.
            grad_keys[:, low:end].baddbmm_(grad_scores.transpose(1, 2), rows)
            grad_values[:, low:end].baddbmm_(weights.transpose(1, 2), grad_rows)
        return grad_query, grad_keys.view_as(key), grad_values.view_as(value), None, None


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


def _set_block(grouped: torch.Tensor, start: int, end: int, values: torch.Tensor) -> None:
    """The inverse of `_block`: writes its rows."""
    part = grouped[..., start:end, :]
    part.copy_(values.view(part.shape))


def _spans(tokens: int, window: int | None) -> list[tuple[int, int, int]]:
    """(first key, first query, end of both) of every block."""
    starts = range(0, tokens, ROWS)
    return [(max(0, start - window + 1) if window else 0, start, min(start + ROWS, tokens)) for start in starts]


def _weights(
    rows: torch.Tensor, key: torch.Tensor, scaling: float, window: int | None, groups: int, ahead: int
) -> torch.Tensor:
    """Attention weights [batch x kv_heads, groups x rows, keys]; the first row stands at key `ahead`."""
    # With beta=0 the first argument is ignored: this is rows @ key' * scaling in one call.
    scores = torch.baddbmm(rows.new_empty(1, 1, 1), rows, key.transpose(1, 2), beta=0, alpha=scaling)
    count, grouped_rows, keys = scores.shape
    by_group = scores.view(count, groups, grouped_rows // groups, keys)
    if window:
        by_group += mask(grouped_rows // groups, keys, ahead, window, rows.dtype, rows.device)
    else:  # without a window only the block on the diagonal has keys to hide
        by_group[..., ahead:] += mask(grouped_rows // groups, keys - ahead, 0, None, rows.dtype, rows.device)
    return torch.softmax(scores, -1)


@lru_cache(maxsize=64)
def mask(
    rows: int, keys: int, ahead: int, window: int | None, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """[rows, keys] to add to scores: -inf where row i, which stands at key `ahead` + i, does not see the key."""
    positions = torch.arange(max(rows, keys), device=device)
    behind = positions[:rows, None] + ahead - positions[None, :keys]  # by how much the key comes before the row
    hidden = behind < 0 if window is None else (behind < 0) | (behind >= window)
    return torch.zeros(rows, keys, dtype=dtype, device=device).masked_fill_(hidden, float("-inf"))
