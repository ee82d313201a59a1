"""The largest rank of LoRA whose training step fits a card's memory."""

from collections.abc import Sequence
from dataclasses import replace

from harness.predict.prediction import PredictRequest, predict_cell
from harness.records.cell import FULL
from harness.solve.estimate import EstimateObserver, traced

_MOST = 1 << 16  # harness.limits.Rank
_WIDTHS = ("hidden_size", "n_embd", "d_model")  # a config's names for the width of its layers


def most_rank(request: PredictRequest, command: Sequence[str], observer: EstimateObserver) -> int | None:
    """The largest power of two that surely fits at the whole context; 0 where not even 1 does, None without LoRA.

    Adapters, gradients, states and what the step keeps of A's output grow with the rank in proportion, so that two
    traces tell all. A rank as wide as the model is no longer low, and the largest. Raises UserError as tracing does.
    """
    recipe = request.recipe
    if recipe.method == FULL:
        return None
    ranks = recipe.lora_r, 2 * recipe.lora_r
    requests = [replace(request, recipe=replace(recipe, lora_r=rank)) for rank in ranks]
    at_context = [{request.context: one.trace_keys()[request.context]} for one in requests]
    low, high = (
        predict_cell(one, traced(keys, one, command, observer)) for one, keys in zip(requests, at_context, strict=True)
    )
    per_rank = (high.peak_bytes - low.peak_bytes) / recipe.lora_r

    def fits(rank: int) -> bool:
        return bool(replace(low, peak_bytes=low.peak_bytes + (rank - recipe.lora_r) * per_rank).fits_memory())

    architecture = request.spec.architecture
    width = next((size for name in _WIDTHS if type(size := architecture.get(name)) is int), _MOST)
    powers = [1 << k for k in range(_MOST.bit_length()) if 1 << k <= width]
    return max((rank for rank in powers if fits(rank)), default=0)
