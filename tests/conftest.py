"""Small real things for the tests: a model saved to disk, a catalogue, rows with known samples."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from harness.arc.tasks import Pair, Puzzle
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


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    """A real tokenizer of characters, saved and loaded as any other."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    characters = sorted(set("".join(map(chr, range(32, 127))) + "\n"))
    vocab = {c: i for i, c in enumerate([*characters, "<s>", "</s>", "<unk>"])}
    core = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    made = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    folder = tmp_path_factory.mktemp("tokenizer")
    made.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="session")
def weights_folder(tmp_path_factory, tokenizer):
    """A Llama of two layers with the tokenizer of characters, as a user's folder of weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    said = {**TINY, "vocab_size": len(tokenizer), "max_position_embeddings": 1024}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(said.pop("model_type"), **said))
    path = tmp_path_factory.mktemp("weights") / "tiny"
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def made_puzzles(count, rule=lambda grid: grid[::-1], pairs=3):
    """Puzzles of one rule (upside down), with their solutions."""
    rng, found, solutions = random.Random(0), [], {}
    for n in range(count):
        grids = [tuple(tuple(rng.randrange(10) for _ in range(3)) for _ in range(2)) for _ in range(pairs + 1)]
        found.append(Puzzle(f"t{n}", tuple(Pair(g, rule(g)) for g in grids[:-1]), (grids[-1],)))
        solutions[f"t{n}"] = (rule(grids[-1]),)
    return found, solutions
