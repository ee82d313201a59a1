"""What bitsandbytes' Python takes of the interpreter, in launches of plain operations: small layers on a CPU.

python -m bench.quantized_host [--repeat 5]

A 4-bit layer against a plain one of the same small shape, forward and backward, over the mean time of an operation in
this program's step on a narrow model: the part of a launch that Python has, the rest of which is roofline.ENGINE_SHARE.
Printed is, in such launches, what harness/predict/roofline.py adds to those that the tracer counts: of a product by a
4-bit matrix, which counts as one as a plain product does, and of each of the two dequantisings in the backward, beside
which the tracer counts an addition.

The unit is an operation of this program's step as it is. The figures there (3.5 and 0.9) are in operations of the step
before adapters and products were shared, 153 per layer, as the H100's calibration is. Those left are dearer, and in
them the same time is fewer: 2.8 and 0.5 (bench/LOG.md).
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch

from harness.catalog.precisions import find
from harness.predict import op_trace, roofline
from harness.records.cell import ModelSpec, Recipe
from harness.train import meta_model
from harness.train import model as models
from harness.train.batches import random_batch
from harness.train.compat import bitsandbytes_for
from harness.train.step import TrainingStep

_WIDTH, _ROWS, _TOKENS, _VOCABULARY = 64, 4, 16, 512
_FEW, _MANY = 4, 12  # layers
_DEQUANTIZED, _ADDED = 2, 1  # operations that the tracer counts in a 4-bit layer's backward beside the product
_CPU = torch.device("cpu")


def _seconds(run: Callable[[], object], times: int) -> float:
    """Of the thread that launches, in the middle of fifteen blocks."""
    samples = []
    for _ in range(16):
        begun = time.thread_time()
        for _ in range(times):
            run()
        samples.append((time.thread_time() - begun) / times)
    return median(samples[1:])


def operation_seconds() -> float:
    """The mean of an operation of our step: 12 layers less 4, over the operations that the tracer counts there."""
    took, counted, recipe = {}, {}, Recipe(kernels="attention=sdpa pointwise=plain")
    for layers in (_FEW, _MANY):
        architecture = {
            "model_type": "qwen2",
            "hidden_size": _WIDTH,
            "intermediate_size": 176,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": _VOCABULARY,
            "tie_word_embeddings": True,
            "max_position_embeddings": _VOCABULARY,
        }
        spec, fp32 = ModelSpec("narrow", architecture, _VOCABULARY), find("fp32")
        step = TrainingStep(models.load(spec, fp32, "fp32", recipe, "random", _CPU).model, recipe, "fp32", _CPU)
        batch = random_batch(_VOCABULARY, _TOKENS, recipe, _CPU, seed=0)
        took[layers] = _seconds(lambda step=step, batch=batch: step.micro_step(batch), 4)
        model = meta_model.build_meta_model(spec, fp32, "fp32", recipe, "cpu")
        counted[layers] = sum(op.count for op in op_trace.trace(model, recipe, _TOKENS, "cpu").ops)
    return (took[_MANY] - took[_FEW]) / (counted[_MANY] - counted[_FEW])


def layer_seconds() -> tuple[float, float]:
    """What a 4-bit layer takes more than a plain one: in the forward, and in the backward."""
    bnb = bitsandbytes_for(_CPU)
    plain = torch.nn.Linear(_WIDTH, _WIDTH, bias=False).requires_grad_(False)
    packed = bnb.nn.Linear4bit(_WIDTH, _WIDTH, bias=False, compute_dtype=torch.float32, quant_type="nf4")
    packed.weight = bnb.nn.Params4bit(
        plain.weight.data.clone(), requires_grad=False, quant_type="nf4", compress_statistics=True
    ).to(_CPU)
    x, gradient = torch.randn(_ROWS, _WIDTH, requires_grad=True), torch.randn(_ROWS, _WIDTH)
    forward, both = (
        [_seconds(lambda layer=layer, of=of: of(layer), 300) for layer in (plain, packed)]
        for of in (lambda layer: layer(x), lambda layer: torch.autograd.grad(layer(x), x, gradient))
    )
    forward_s = forward[1] - forward[0]
    return forward_s, both[1] - both[0] - forward_s


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeat", type=int, default=5)
    torch.set_num_threads(1)
    products, dequantized = [], []
    for _ in range(parser.parse_args().repeat):
        unit_s, (forward_s, backward_s) = operation_seconds(), layer_seconds()
        python, counted = 1 - roofline.ENGINE_SHARE, _DEQUANTIZED + _ADDED
        products.append(python * forward_s / unit_s)
        dequantized.append(python * (backward_s / unit_s - counted) / _DEQUANTIZED)
        print(
            f"an operation {1e6 * unit_s:.2f} us; a 4-bit layer {1e6 * forward_s:.1f} us more forward and "
            f"{1e6 * backward_s:.1f} us backward: {products[-1]:.1f} launches, and {dequantized[-1]:.1f} twice"
        )
    print(f"in the middle: {median(products):.1f}, and {median(dequantized):.1f} twice")


if __name__ == "__main__":
    main()
