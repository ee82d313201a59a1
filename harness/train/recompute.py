"""Which activations are made again in the backward instead of being held: none, those inside the gated MLPs, or all.

With a frozen base a step costs about 4 FLOPs a parameter and token. Making all layers again adds 2 for each; making
gate and up alone again adds 2 for each of theirs, and lets go of most of what is held (selective recomputation, as
Korthikanti et al. 2022 do for attention).
"""

from collections.abc import Callable

import torch
from torch.utils.checkpoint import checkpoint

from harness.records.cell import ALL, MLP
from harness.train.compat import quiet

_AGAIN = "makes_again"  # of the modules that can: whether they do


def use(model: torch.nn.Module, how: str) -> None:
    """Lets `model` do as a Recipe's `gradient_checkpointing` says.

    A model without a gated MLP of ours makes all again where MLP is asked for.
    """
    able = [module for module in model.modules() if hasattr(module, _AGAIN)]
    for module in able:
        setattr(module, _AGAIN, how == MLP)
    with quiet():
        if how == ALL or (how == MLP and not able):
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        elif any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
            model.gradient_checkpointing_disable()


def enable(module: torch.nn.Module) -> None:
    """Says that `module` computes a part of its forward by `again`, and may be asked to make it again."""
    if not hasattr(module, _AGAIN):
        setattr(module, _AGAIN, False)


def recompute(module: torch.nn.Module, part: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """part(x), of which only x is held for the backward if `module` makes it again."""
    if getattr(module, _AGAIN, False) and torch.is_grad_enabled():
        return checkpoint(part, x, use_reentrant=False)
    return part(x)
