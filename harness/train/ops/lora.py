"""The step's products with their backward written out: as many as the mathematics asks for, and nothing kept that the
backward can do without. harness.train.ops.pointwise has what is no product.

Each is equal to what transformers and PEFT compute, to within the rounding of the dtype; harness.train.patch puts
them in, and checks that.
"""

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


class LoraLinear(torch.autograd.Function):
    """x W' + bias + scaling (x A') B' in x's dtype: (x [..., in], W [out, in], bias, A [r, in], B [out, r], scaling).

    A and B are kept in fp32 for the optimiser and rounded to x's dtype here, two small matrices; PEFT instead widens
    every activation to theirs. W and bias are frozen.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, a, b, scaling):
        flat = x.reshape(-1, x.shape[-1])
        a_low, b_low = a.to(x.dtype), (b * scaling).to(x.dtype)
        inner = flat @ a_low.t()
        out = linear(flat, weight, bias).addmm_(inner, b_low.t())
        ctx.save_for_backward(flat, weight, a_low, b_low, inner)
        ctx.scaling, ctx.shape = scaling, x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx, grad):
        flat, weight, a, b, inner = ctx.saved_tensors
        grad = grad.reshape(-1, grad.shape[-1])
        through = grad @ b
        dx = None
        if ctx.needs_input_grad[0]:
            dx = torch.mm(grad, weight).addmm_(through, a).view(ctx.shape)
        return dx, None, None, (through.t() @ flat).float(), (grad.t() @ inner).float().mul_(ctx.scaling), None


class LoraAddition(torch.autograd.Function):
    """out + scaling (x A') B' as LoraLinear has it, `out` [..., out] being what a quantised layer made of x."""

    @staticmethod
    def forward(ctx, out, x, a, b, scaling):
        flat = x.reshape(-1, x.shape[-1])
        a_low, b_low = a.to(x.dtype), (b * scaling).to(x.dtype)
        inner = flat @ a_low.t()
        ctx.save_for_backward(flat, a_low, b_low, inner)
        ctx.scaling, ctx.shape = scaling, x.shape
        return torch.addmm(out.reshape(-1, out.shape[-1]), inner, b_low.t()).view(out.shape)

    @staticmethod
    def backward(ctx, grad):
        flat, a, b, inner = ctx.saved_tensors
        rows = grad.reshape(-1, grad.shape[-1])
        through = rows @ b
        dx = (through @ a).view(ctx.shape) if ctx.needs_input_grad[1] else None
        return grad, dx, (through.t() @ flat).float(), (rows.t() @ inner).float().mul_(ctx.scaling), None
