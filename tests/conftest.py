"""Small real things for the tests: a model saved to disk, a catalogue, rows with known samples."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.catalog import models as catalog
from harness.records import Cell, Measurement, ModelSpec, Rate, Recipe, Work

TINY = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 320,
    "tie_word_embeddings": True,
    "max_position_embeddings": 256,
}


@pytest.fixture(scope="session")
def tiny_spec() -> ModelSpec:
    return ModelSpec("tiny", TINY, 256)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """A Llama of two layers as save_pretrained leaves it: config.json and model.safetensors."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    said = dict(TINY)
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(said.pop("model_type"), **said))
    folder = tmp_path_factory.mktemp("models") / "tiny"
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def shipped() -> catalog.Catalog:
    """The models.yaml of the project."""
    return catalog.load(Path(__file__).parents[1] / "models.yaml")


FP32 = Rate(60e9, 60e9, True)


def cell(**changes) -> Cell:
    spec = ModelSpec("tiny", TINY, 4096, params_m=1.0)
    return replace(Cell(spec, "fp32", "fp32", 1024, Recipe(), "random", "cpu", "a CPU"), **changes)


def row(micro_s=(1.0,) * 12, status="ok", **changes) -> Measurement:
    """A measured row: by default 12 micro-steps of a second, updates of nothing, a gigabyte at the peak."""
    said = {
        "key": f"k{abs(hash(repr((micro_s, changes)))):x}",
        "cell": cell(),
        "status": status,
        "rate": FP32,
        "work": Work(1e9, 1e5, 1e9, 2e5),
        "params": 1_000_000,
        "device_total_bytes": 8 << 30,
    }
    if status == "ok":
        said |= {
            "load_s": 0.0,
            "warmup_micro_s": (1.0,),
            "warmup_optimizer_s": (0.0,),
            "micro_s": tuple(micro_s),
            "optimizer_s": (0.0,),
            "losses": (2.0, 1.0),
            "memory": {"after_load": {"resident": 1 << 29}, "steady": {"resident": 1 << 30}},
        }
    return Measurement(**(said | changes))
