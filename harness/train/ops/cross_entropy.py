"""Cross-entropy over a large vocabulary that never holds tokens x vocabulary."""

from collections.abc import Iterator

import torch
from torch.nn.functional import linear

from harness.train.ops.attention import device_kind

# Logits (rows x vocabulary) of one chunk.
_LOGITS_AT_ONCE = 2**25
# Logits widened to fp32 at once: as many as a CPU's cache holds; on cards more, for fewer launches.
_WIDENED_AT_ONCE = {"cpu": 2**20}
_WIDENED_ELSEWHERE = 2**23
# Gradients of logits go down to 1 / vocabulary, where fp16 has hardly a digit left; scaling by a power of two is exact.
_FP16_SCALE = 1024.0


class AnswerLosses(torch.autograd.Function):
    """Cross-entropy in nats of each row: (hidden [rows, width], head [vocabulary, width], bias or None, targets int64
    [rows]) -> fp32 [rows].

    Logits are held for one chunk of rows at a time. The gradient of a row's loss is computed with the loss, in the
    logits' place, as in Liger's fused linear cross-entropy (Hsu et al. 2024, section 3.2). The head is frozen and gets
    no gradient.
    """

    @staticmethod
    def forward(ctx, hidden, head, bias, targets):
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        needs_grad = ctx.needs_input_grad[0]
        grads = torch.empty_like(hidden, dtype=torch.float32) if needs_grad else None
        scale = _FP16_SCALE if hidden.dtype == torch.float16 else 1.0
        # Rows per chunk of logits, and per part that is widened to fp32.
        chunk_rows = max(1, _LOGITS_AT_ONCE // len(head))
        wide_rows = max(1, _WIDENED_AT_ONCE.get(device_kind(hidden.device), _WIDENED_ELSEWHERE) // len(head))
        for hidden_rows, target_rows, loss_rows, grad_rows in _in_chunks(chunk_rows, hidden, targets, losses, grads):
            logits = linear(hidden_rows, head, bias)
            parts = (rows.split(wide_rows) for rows in (logits, target_rows, loss_rows))
            for part, target, loss in zip(*parts, strict=True):
                log_probs = torch.log_softmax(part, 1, dtype=torch.float32)
                loss.copy_(log_probs.gather(1, target[:, None])[:, 0].neg_())
                if needs_grad:  # softmax - one-hot, in the logits' place
                    dlogits = log_probs.exp_()
                    dlogits.scatter_add_(1, target[:, None], dlogits.new_full((1, 1), -1.0).expand(len(part), 1))
                    part.copy_(dlogits.mul_(scale) if scale != 1 else dlogits)
            if needs_grad:
                grad_rows.copy_(logits @ head)
        if needs_grad:
            ctx.save_for_backward(grads.div_(scale) if scale != 1 else grads)
        ctx.dtype = hidden.dtype
        return losses

    @staticmethod
    def backward(ctx, grad):
        (grads,) = ctx.saved_tensors
        return (grads * grad[:, None]).to(ctx.dtype), None, None, None


def _in_chunks(max_rows: int, *tensors: torch.Tensor | None) -> Iterator[tuple[torch.Tensor | None, ...]]:
    """Views of `tensors`, which have the same number of rows: the fewest chunks of about equal size, at most `max_rows`
    rows long."""
    rows = len(tensors[0])
    count = -(-rows // max_rows)
    for number in range(count):
        chunk = slice(rows * number // count, rows * (number + 1) // count)
        yield tuple(tensor[chunk] if tensor is not None else None for tensor in tensors)
