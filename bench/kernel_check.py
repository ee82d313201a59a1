"""Every kernel of the step against the plain step of transformers and PEFT, on this device: losses and gradients.

A small model (grouped heads, random adapter) learns from sequences alone and in one pack: by every kernel that
harness.catalog.kernels lists for the device, and by the plain step. In fp32 the two may differ by rounding; in 16 bits
ours may be no further from the plain step in fp32 than about twice what the plain step in 16 bits is. One line of JSON
per comparison; exit code 1 where one does not hold.

    python -m bench.kernel_check [--device cuda:0] [--precisions "fp32 bf16 int4"]
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from harness.catalog import precisions
from harness.catalog.kernels import ATTENTION, AUTO, KERNELS, POINTWISE
from harness.errors import Unsupported, first_line
from harness.hardware.device import TORCH_DTYPES
from harness.records.cell import REFERENCE, ModelSpec, Recipe
from harness.train import model as models
from harness.train.batches import Batch, pack
from harness.train.compat import quiet
from harness.train.step import TrainingStep

ARCHITECTURE = {
    "model_type": "qwen2", "vocab_size": 512, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "tie_word_embeddings": True,
}  # fmt: skip
LENGTHS = ((200, 24), (131, 16), (64, 9))  # (tokens, answer tokens)
RECIPE = Recipe(lora_r=8, lora_targets="all-linear", sequences_per_step=len(LENGTHS), kernels="plain")
LOSS, GRADIENT = 1e-4, 1e-3  # in fp32: nats, and the share of the gradient's norm
TIMES, ROUNDING = 2.0, 2e-3  # in 16 bits: times the plain step's own distance from fp32, and what is always allowed

Learned = tuple[torch.Tensor, torch.Tensor]  # losses of the sequences; gradient of all trained values, in one row


def kernels_of(kind: str) -> list[str]:
    """What to compare on a device of `kind`: every kernel of each part beside the first of the other, and auto."""
    attention, pointwise = KERNELS[kind][ATTENTION], KERNELS[kind][POINTWISE]
    pairs = [(name, pointwise[0]) for name in attention] + [(attention[0], name) for name in pointwise[1:]]
    return [f"{ATTENTION}={first} {POINTWISE}={second}" for first, second in pairs] + [AUTO]


def comparisons(device: torch.device, names: list[str], choices: list[str] | None = None) -> Iterator[dict]:
    """{subject, held, text} for every precision and kernel; held is None where the kernel does not run here.

    `choices` are those of `kernels_of` unless given.
    """
    choices = choices or kernels_of(device.type)
    with tempfile.TemporaryDirectory() as folder:
        # In bf16 on disk, so that every dtype reads the same values.
        torch.manual_seed(0)
        config = AutoConfig.for_model(**ARCHITECTURE)
        with quiet():
            AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
        for name in names:
            compute = precisions.find(name).compute or next(n for n in (*names, "fp32") if n in TORCH_DTYPES)
            yield from _of_precision(Path(folder), device, name, compute, choices)


def _of_precision(folder: Path, device: torch.device, name: str, compute: str, choices: list[str]) -> Iterator[dict]:
    wide = name if precisions.find(name).quantized else "fp32"
    try:
        exact = learned(folder, device, wide, "fp32", REFERENCE, packed=False)[0]
        plain = exact if compute == "fp32" else learned(folder, device, name, compute, REFERENCE, packed=False)[0]
    except (Unsupported, RuntimeError) as problem:
        yield {"subject": f"{name} plain step", "held": False, "text": first_line(problem)}
        return
    for kernels in choices:
        for packed in (False, True):
            subject = f"{name} {kernels}, {'packed' if packed else 'alone'}"
            try:
                ours, left = learned(folder, device, name, compute, kernels, packed)
            except Unsupported as problem:
                yield {"subject": subject, "held": None, "text": str(problem)}
                break
            except Exception as problem:  # a kernel fails in whatever way it likes; the next one may be right
                yield {"subject": subject, "held": False, "text": f"{type(problem).__name__}: {first_line(problem)}"}
                continue
            yield {"subject": subject, **judged(ours, plain, exact, compute)}
            if left:
                yield {"subject": subject, "held": False, "text": f"left to transformers: {', '.join(left)}"}


def learned(
    folder: Path, device: torch.device, name: str, compute: str, kernels: str, packed: bool
) -> tuple[Learned, tuple[str, ...]]:
    """What a step learns by `kernels` (REFERENCE: the plain step), and what stayed transformers' own."""
    own = kernels != REFERENCE
    recipe = replace(RECIPE, kernels=kernels) if own else replace(RECIPE, implementation=REFERENCE)
    spec = ModelSpec("tiny", ARCHITECTURE, ARCHITECTURE["max_position_embeddings"])
    loaded = models.load(spec, precisions.find(name), compute, recipe, str(folder), device)
    # The adapter starts at zero, where errors do not show. Drawn on the CPU: the same on every device.
    generator = torch.Generator().manual_seed(1)
    trained = [p for p in loaded.model.parameters() if p.requires_grad]
    for p in trained:
        p.data.copy_(torch.randn(p.shape, generator=generator) * 0.3 / p.shape[-1] ** 0.5)
    sequences = [
        (torch.randint(ARCHITECTURE["vocab_size"], (tokens,), generator=generator).tolist(), answer)
        for tokens, answer in LENGTHS
    ]
    step = TrainingStep(loaded.model, recipe, compute, device)
    if packed:
        losses = [step.packed_step(pack(sequences, device))]
    else:
        losses = [step.micro_step(Batch(torch.tensor([ids], device=device), answer)) for ids, answer in sequences]
    scale = step.scaler.get_scale() if step.scaler else 1.0
    gradient = torch.cat([p.grad.double().flatten().cpu() for p in trained if p.grad is not None]) / scale
    return (torch.stack(losses).double().sum().cpu(), gradient), loaded.unpatched


def judged(ours: Learned, plain: Learned, exact: Learned, compute: str) -> dict:
    """{held, text}: whether `ours` is right, given the plain step in the same dtype and in fp32."""
    loss, gradient = ((a - b).norm().item() for a, b in zip(ours, exact, strict=True))
    gradient /= exact[1].norm().item()
    if compute == "fp32":
        held = loss <= LOSS * len(LENGTHS) and gradient <= GRADIENT
        return {"held": held, "text": f"loss differs by {loss:.1e} nats, gradient by {100 * gradient:.2g} %"}
    plain_loss, plain_gradient = ((a - b).norm().item() for a, b in zip(plain, exact, strict=True))
    plain_gradient /= exact[1].norm().item()
    held = loss <= TIMES * plain_loss + ROUNDING * exact[0].item() and gradient <= TIMES * plain_gradient + ROUNDING
    text = f"loss {loss:.1e} nats and gradient {100 * gradient:.2g} % from fp32"
    return {"held": held, "text": f"{text}; the plain step {plain_loss:.1e} and {100 * plain_gradient:.2g} %"}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precisions", default="fp32", help='as in "fp32 bf16 int4"; int4 computes in the first')
    options = parser.parse_args()
    held = True
    for comparison in comparisons(torch.device(options.device), options.precisions.split()):
        print(json.dumps(comparison), flush=True)
        held = held and comparison["held"] is not False
    sys.exit(not held)


if __name__ == "__main__":
    main()
