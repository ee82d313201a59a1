"""Cross-entropy over a large vocabulary that never holds tokens x vocabulary."""

from collections.abc import Iterator

import torch
from torch.nn.functional import linear

from harness.train.ops.attention import kind_of

# Logits of one chunk: rows x vocabulary.
_LOGITS_AT_ONCE = 2**25
# Of them so many are widened to fp32 at once: what a CPU's cache holds, and on cards what keeps the launches few.
_WIDENED_AT_ONCE = {"cpu": 2**20}
_WIDENED_ELSEWHERE = 2**23
# dlogits go down to 1 / vocabulary, where fp16 has hardly a digit left; a power of two costs none.
_FP16_LIFT = 1024.0


class AnswerLosses(torch.autograd.Function):
    """Cross-entropy in nats of each row: (hidden [rows, width], head [vocabulary, width], bias or None, targets int64
    [rows]) -> fp32 [rows].

    rows x vocabulary is never held but for a chunk, and the gradient of a row's loss is computed with the loss, in the
    logits' place, as Liger's fused linear cross-entropy does (Hsu et al. 2024, section 3.2); the head is frozen, so
    none is for it.
    """

    @staticmethod
    def forward(ctx, hidden, head, bias, targets):
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        wanted = ctx.needs_input_grad[0]
        grads = torch.empty_like(hidden, dtype=torch.float32) if wanted else None
        lift = _FP16_LIFT if hidden.dtype == torch.float16 else 1.0
        most = max(1, _LOGITS_AT_ONCE // len(head))
        narrow = max(1, _WIDENED_AT_ONCE.get(kind_of(hidden.device), _WIDENED_ELSEWHERE) // len(head))
        for part, target, loss, grad in _in_chunks(most, hidden, targets, losses, grads):
            logits = linear(part, head, bias)
            for few, of_few, found in zip(logits.split(narrow), target.split(narrow), loss.split(narrow), strict=True):
                said = torch.log_softmax(few, 1, dtype=torch.float32)
                found.copy_(said.gather(1, of_few[:, None])[:, 0].neg_())
                if wanted:
                    slopes = said.exp_()
                    slopes.scatter_add_(1, of_few[:, None], slopes.new_full((1, 1), -1.0).expand(len(few), 1))
                    few.copy_(slopes.mul_(lift) if lift != 1 else slopes)
            if wanted:
                grad.copy_(logits @ head)
        if wanted:
            ctx.save_for_backward(grads.div_(lift) if lift != 1 else grads)
        ctx.dtype = hidden.dtype
        return losses

    @staticmethod
    def backward(ctx, grad):
        (grads,) = ctx.saved_tensors
        return (grads * grad[:, None]).to(ctx.dtype), None, None, None


def _in_chunks(most: int, *parts: torch.Tensor | None) -> Iterator[tuple[torch.Tensor | None, ...]]:
    """Views of `parts`, which have as many rows, in as few chunks of about equal size as hold at most `most` rows."""
    rows = len(parts[0])
    count = -(-rows // most)
    for number in range(count):
        chunk = slice(rows * number // count, rows * (number + 1) // count)
        yield tuple(part[chunk] if part is not None else None for part in parts)
