"""Activations that are recomputed in the backward instead of being held: none, those inside the gated MLPs, or all.

With a frozen base a step costs about 4 FLOPs per parameter and token. Recomputing all layers adds 2 more; recomputing
gate and up alone adds 2 for their parameters only, and frees most of what is held (selective recomputation, as
Korthikanti et al. 2022 do for attention).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from harness.records.cell import ALL, MLP
from harness.train.compat import quiet

_ALL = "recomputes_all_layers"  # bool attribute of a model
_RECOMPUTES = "recomputes_activations"  # bool attribute of the modules that `enable` marked
_DRAWS = "draws_random_numbers"  # bool attribute of them: dropout must draw the same again


def apply(model: Any, mode: str) -> None:
    """Sets `model` to recompute what `mode`, a Recipe's `gradient_checkpointing`, says.

    A model without a gated MLP of ours recomputes all layers in mode MLP.
    """
    # Gated MLPs of ours recompute gate and up; whole layers are transformers' part.
    drawn = draws(model)
    gated = [module for module in model.modules() if hasattr(module, _RECOMPUTES)]
    for module in gated:
        setattr(module, _RECOMPUTES, mode == MLP)
        setattr(module, _DRAWS, drawn)
    all_layers = mode == ALL or (mode == MLP and not gated)
    setattr(model, _ALL, all_layers)
    with quiet():
        if all_layers:
            settings = {"use_reentrant": False, "preserve_rng_state": drawn}
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=settings)
        elif any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
            model.gradient_checkpointing_disable()


def recomputes_all(model: Any) -> bool:
    """Whether `apply` set `model` to recompute all layers."""
    return getattr(model, _ALL, False)


def draws(model: Any) -> bool:
    """Whether a forward in training draws random numbers: only then are the generators' states kept and set back, which
    on a card costs a wait per recomputed part."""
    if any(isinstance(module, torch.nn.modules.dropout._DropoutNd) and module.p > 0 for module in model.modules()):
        return True
    # Attention's dropout is no module: its share stands in the config, under names that all have "drop" in them.
    values = model.config.to_dict() if hasattr(model, "config") else {}
    texts = [values, *(value for value in values.values() if isinstance(value, dict))]
    return any(
        "drop" in str(name) and isinstance(value, int | float) and value > 0 for t in texts for name, value in t.items()
    )


def enable(module: torch.nn.Module) -> None:
    """Marks a module as able to recompute part of its forward: it calls `recompute` for that part."""
    if not hasattr(module, _RECOMPUTES):
        setattr(module, _RECOMPUTES, False)


def recompute(module: torch.nn.Module, part: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """part(x). If `module` recomputes, only x is held for the backward."""
    if getattr(module, _RECOMPUTES, False) and torch.is_grad_enabled():
        # Non-reentrant, because only that works when the input itself needs no gradient.
        return checkpoint(part, x, use_reentrant=False, preserve_rng_state=getattr(module, _DRAWS, True))
    return part(x)
