"""What DeepSpeed's ZeRO-3 takes of the interpreter: the same small model's micro-step with it and without, on a CPU.

python -m bench.zero3_host

It needs DeepSpeed (`pip install --no-build-isolation deepspeed ninja`, 0.14.5 in bench/LOG.md) and the program numactl.
The model is so narrow that computing takes nothing; 12 layers less 4 give the time of a layer. On a card every
operation is launched besides, with it or without.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

_WIDTH, _VOCABULARY, _TOKENS = 64, 512, 16
_FEW, _MANY = 4, 12  # layers
_ACCUMULATED = 8  # micro-steps per step
# Of a layer's step with every weight trained and activations recomputed: Qwen-1.8B's has 3942 in 24 layers, as traced.
_OPERATIONS, _LAUNCH_S = 164, 7e-6


def _model(layers: int) -> Any:
    import transformers

    config = transformers.Qwen2Config(
        hidden_size=_WIDTH,
        intermediate_size=172,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        vocab_size=_VOCABULARY,
    )
    model = transformers.AutoModelForCausalLM.from_config(config).to(torch.bfloat16).train()
    model.gradient_checkpointing_enable({"use_reentrant": True})
    model.enable_input_require_grads()
    model.config.use_cache = False
    return model


def _plain(layers: int) -> Callable[[], None]:
    model, ids = _model(layers), torch.randint(0, _VOCABULARY, (1, _TOKENS))
    return lambda: model(input_ids=ids, labels=ids).loss.backward()


def _zero3(layers: int) -> Callable[[], None]:
    import deepspeed

    model, ids = _model(layers), torch.randint(0, _VOCABULARY, (1, _TOKENS))
    # As transformers fills in "auto": buckets of width x width, parameters of up to ten widths stay whole.
    zero = {
        "stage": 3,
        "overlap_comm": True,
        "contiguous_gradients": True,
        "reduce_bucket_size": _WIDTH**2,
        "stage3_prefetch_bucket_size": int(0.9 * _WIDTH**2),
        "stage3_param_persistence_threshold": 10 * _WIDTH,
    }
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": _ACCUMULATED,
        "bf16": {"enabled": True},
        "zero_allow_untested_optimizer": True,
        "zero_optimization": zero,
    }
    engine, *_ = deepspeed.initialize(model=model, config=config, optimizer=torch.optim.AdamW(model.parameters()))

    def micro_step() -> None:
        loss = engine(input_ids=ids, labels=ids).loss
        engine.backward(loss)
        engine.step()

    return micro_step


_SIDES = {"plain": _plain, "zero3": _zero3}


def layer_seconds(build: Callable[[int], Callable[[], None]]) -> float:
    """Seconds of the thread that launches, per layer of a micro-step."""
    took = {}
    for layers in (_FEW, _MANY):
        micro_step, samples = build(layers), []
        for _ in range(6 * _ACCUMULATED):
            begun = time.thread_time()
            micro_step()
            samples.append(time.thread_time() - begun)
        took[layers] = median(samples[_ACCUMULATED:])
    return (took[_MANY] - took[_FEW]) / (_MANY - _FEW)


def _measured(side: str) -> float:
    """`layer_seconds` of a side, in a process of its own."""
    place = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29617"}
    environment = {**os.environ, **place, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "bench.zero3_host", "--side", side]
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if out.returncode:
        raise SystemExit(f"{side}: {(out.stderr.strip() or 'no word').splitlines()[-1]}; see the command's first lines")
    return float(json.loads(out.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--side", choices=_SIDES)
    parser.add_argument("--repeat", type=int, default=2)
    options = parser.parse_args()
    if options.side:
        torch.set_num_threads(1)
        print(json.dumps(layer_seconds(_SIDES[options.side])))
        return
    pairs = [(_measured("plain"), _measured("zero3")) for _ in range(options.repeat)]
    launches = _OPERATIONS * _LAUNCH_S
    for plain, zero3 in pairs:
        on_card = (zero3 + launches) / (plain + launches)
        ratio = f"{zero3 / plain:.1f} times, {on_card:.1f} with a card's launches"
        print(f"plain {1e3 * plain:.2f} ms per layer, ZeRO-3 {1e3 * zero3:.2f}: {ratio}")


if __name__ == "__main__":
    main()
