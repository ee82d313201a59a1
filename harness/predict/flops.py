"""FLOPs of a micro-step, counted on the real forward and backward without a device.

The model is built on the meta device with its adapter, run under torch's FlopCounterMode, and the counts of two
lengths give the two coefficients of harness.records.measurement.FlopCount. A frozen base needs no gradient of its
weights, so LoRA costs about 4 N per token, not the 6 N of full training: here that is seen, not assumed.
"""

from dataclasses import replace

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from harness.records.cell import REFERENCE, ModelSpec, Recipe
from harness.records.measurement import FlopCount
from harness.train import check, random_init
from harness.train import model as models
from harness.train.adapter import add_adapter
from harness.train.batches import random_batch
from harness.train.compat import without_storage
from harness.train.losses import loss_of
from harness.train.ops import experts

_LONGEST, _WHOLE = 1000, 100  # tokens; a multiple of 100 makes whole answers at any share of two digits


def count_flops(spec: ModelSpec, recipe: Recipe) -> tuple[FlopCount, int]:
    """The work of one sequence under `recipe`, and the base's number of parameters.

    Raises harness.errors.Unsupported where the architecture cannot be built.
    """
    # Shapes alone decide, so the dtype and the quantisation do not matter here.
    base = random_init.on_meta(models.as_measured(spec, recipe), torch.float32)
    params = sum(p.numel() for p in base.parameters())
    base.requires_grad_(False)
    with torch.device("meta"):
        model = add_adapter(base, recipe)
    if recipe.implementation != REFERENCE:
        check.apply(model, check.supported(model.config, recipe), compare=False)
    experts.use_balanced(model)
    recipe = replace(recipe, micro_batch=1)
    longest = max(2, min(_LONGEST, spec.max_context // _WHOLE * _WHOLE or spec.max_context))
    lengths = (longest // 2, longest)
    forward, backward = zip(*(_micro_step(model, recipe, length) for length in lengths), strict=True)
    return FlopCount(*_quadratic(lengths, forward), *_quadratic(lengths, backward)), params


def _micro_step(model: torch.nn.Module, recipe: Recipe, tokens: int) -> tuple[int, int]:
    batch = random_batch(1, tokens, recipe, torch.device("meta"), seed=0)
    with without_storage(), _Truths(), FlopCounterMode(display=False) as counter:
        # The counter runs on: what it adds during the backward is the backward's.
        loss = loss_of(recipe)(model, batch)
        forward = counter.get_total_flops()
        loss.backward()
    model.zero_grad(set_to_none=True)
    return forward, counter.get_total_flops() - forward


class _Truths(TorchDispatchMode):
    """What transformers asks of the values of a tensor without storage is true, as in harness.predict.op_trace."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return True if func is torch.ops.aten._local_scalar_dense.default else func(*args, **(kwargs or {}))


def _quadratic(lengths: tuple[int, int], counts: tuple[int, int]) -> tuple[float, float]:
    """(a, b) of a * n + b * n**2 through both counts."""
    (n1, n2), (c1, c2) = lengths, counts
    # c / n = a + b n is a line; its slope is b.
    b = (c2 / n2 - c1 / n1) / (n2 - n1)
    return c1 / n1 - b * n1, b
