"""Building a model with random weights against loading one of the same shape: python -m bench.bench_build [MODEL].

Writes the model's safetensors to a temporary folder once (fp32: 2 GB for qwen-0.5b), then builds and loads it in turn,
and compares with transformers' own random initialisation. Both end with every page of the weights read.
"""

import sys
import time
from statistics import median
from tempfile import TemporaryDirectory

import torch
from transformers import AutoModelForCausalLM

from harness.catalog import models as catalog
from harness.catalog.precisions import find
from harness.train import model as models
from harness.train.random_init import config_of, random_model

CPU = torch.device("cpu")


def main() -> None:
    known = catalog.load()
    spec = known.find(sys.argv[1] if len(sys.argv) > 1 else "qwen-0.5b")
    with TemporaryDirectory() as folder:
        random_model(spec, find("fp32"), torch.float32, CPU).save_pretrained(folder)
        for name in ("fp32", "int4"):
            taken = {"random": [], folder: []}
            for _ in range(3):
                for weights, seconds in taken.items():
                    start = time.perf_counter()
                    ready = models.load(spec, find(name), "fp32", known.recipe, weights, CPU)
                    # Read a value of every page: loading only maps the file, and would pay in the first step.
                    for p in ready.model.parameters():
                        p.data.view(-1)[:: 4096 // p.element_size()].max()
                    seconds.append(time.perf_counter() - start)
            built, loaded = (median(seconds) for seconds in taken.values())
            print(
                f"{spec.name} {name}: built at random in {built:.2f} s, loaded from disk in {loaded:.2f} s", flush=True
            )
    start = time.perf_counter()
    AutoModelForCausalLM.from_config(config_of(spec), dtype=torch.float32)
    print(f"transformers' own initialisation: {time.perf_counter() - start:.2f} s")


if __name__ == "__main__":
    main()
