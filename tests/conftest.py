"""Small real things for the tests: a model saved to disk, a catalogue, rows with known samples."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from harness.arc.task import Pair, Task
from harness.catalog import models as catalog
from harness.records.arm import ArmResult, Coverage, CurvePoint, TaskScore, TuneSpec
from harness.records.cell import TUNING_RULE, Cell, ModelSpec, Recipe
from harness.records.measurement import FlopCount, MatmulSpeed, Measurement

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


# What a user's shell may say, and would change what the tests see: a terminal's kind and size, encodings, caches.
_SHELL = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE",
          "TTY_INTERACTIVE", "PYTHONIOENCODING", "LC_ALL", "LC_CTYPE", "LANG", "RANK", "WORLD_SIZE",
          "XDG_CACHE_HOME", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_TOKEN", "TRANSFORMERS_CACHE")  # fmt: skip


@pytest.fixture(autouse=True, scope="session")
def own_world(tmp_path_factory):
    """A home, caches and a terminal of the tests' own, whatever the user has."""
    with pytest.MonkeyPatch.context() as world:
        for name in _SHELL:
            world.delenv(name, raising=False)
        home = tmp_path_factory.mktemp("home")
        for name, value in {
            "HOME": home,
            "HF_HOME": home / "huggingface",
            "TTFT_BENCH_CACHE": home / "cache",
            "TERM": "xterm-256color",
            "PYTHONUTF8": 1,
        }.items():
            world.setenv(name, str(value))
        yield


@pytest.fixture(autouse=True)
def own_folder(tmp_path_factory, monkeypatch):
    """Every test runs in an empty folder: no `results/` of an earlier bench, no models.yaml of somebody's."""
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))


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


FP32 = MatmulSpeed(60e9, 60e9, True)


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
        "work": FlopCount(1e9, 1e5, 1e9, 2e5),
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


def result(
    right: int, tasks: int = 10, steps: int = 64, arm: str = "n-1", decode_s: float = 0.0, **changes
) -> ArmResult:
    """An arm's result on tasks t0, t1, ... of which the first `right` are solved; by default of `row()`'s model.

    `changes` are fields of its spec, or of the result where it has such a field.
    """
    trial = {
        "model": cell().model,
        "weights": "random",
        "precision": "fp32",
        "compute_dtype": "fp32",
        "device": "cpu",
        "device_name": "a CPU",
        "recipe": Recipe(),
        "dataset": "made",
        "tasks": tuple(f"t{i}" for i in range(tasks)),
        "steps": steps,
        "context": 1024,
        "encoding": "rows",
        "views": 2,
        "seed": 0,
        "curve": False,
        "scope": "shared",
    }
    said = {
        "versions": {},
        "commit": None,
        "started": "2025-01-01T00:00:00+00:00",
        "coverage": Coverage(tasks, tasks, 3 * tasks, 3 * tasks),
        "scores": tuple(TaskScore(f"t{i}", *(float(i < right),) * 5) for i in range(tasks)),
        "attempts": {},
        "step_losses": tuple(2.0 - 0.01 * i for i in range(steps)),
        "answer_losses": ((0.5, 12),) * tasks,
        "train_s": 0.5 * steps,
        "decode_s": decode_s,
        "used": 16 * steps,
        "too_long": 0,
        "untrained": 0,
        "asked": 2 * tasks,
        "skipped": 0,
    }
    for name, value in changes.items():
        (trial if name in trial else said)[name] = value
    said["spec"] = TuneSpec(**trial)
    return ArmResult(**{"key": said["spec"].key(arm, {}), "arm": arm, "rule": TUNING_RULE, **said})


def curve(tasks: int, *right: int, first: int = 8) -> tuple[CurvePoint, ...]:
    """Checkpoints at `first` steps, twice as many, ... after which so many of the tasks were right; the loss falls."""
    return tuple(
        CurvePoint(first * 2**i, 2.0 - 0.1 * i, (1.0,) * n + (0.0,) * (tasks - n)) for i, n in enumerate(right)
    )


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


@pytest.fixture(scope="session")
def arc_folder(tmp_path_factory):
    """A Llama of two narrow layers with arc-tiny's tokenizer, one token a cell: the quickest to tune.

    It was taught just enough to answer with a grid of about the right shape, and to end it.
    """
    import torch

    from harness.arc.prompt import build
    from harness.tiny import model as tiny

    model, tokens, rng = tiny.new(seed=0, hidden=32, layers=2, heads=2), tiny.tokenizer(), random.Random(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(150):
        made = [_random_grid(rng, 2, 3) for _ in range(24)]
        pairs = [Pair(grid, grid) for grid in made]
        ids = torch.tensor([build(tokens, pairs[i : i + 2], made[i], made[i], "rows").ids for i in range(0, 24, 3)])
        labels = torch.where(torch.arange(ids.shape[1]) >= ids.shape[1] - 8, ids, -100)
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    path = tmp_path_factory.mktemp("arc") / "small"
    tiny.save(model, path)
    return path


def _random_grid(rng, height, width):
    return tuple(tuple(rng.randrange(10) for _ in range(width)) for _ in range(height))


def made_tasks(count, rule=lambda grid: grid[::-1], shown=3):
    """Tasks of one rule (upside down), with their solutions."""
    rng, found, solutions = random.Random(0), [], {}
    for n in range(count):
        grids = [tuple(tuple(rng.randrange(10) for _ in range(3)) for _ in range(2)) for _ in range(shown + 1)]
        found.append(Task(f"t{n}", tuple(Pair(g, rule(g)) for g in grids[:-1]), (grids[-1],)))
        solutions[f"t{n}"] = (rule(grids[-1]),)
    return found, solutions


def write_tasks(folder: Path, tasks, solutions) -> Path:
    """The tasks as a folder of ARC's JSON, one file a task."""
    folder.mkdir(parents=True, exist_ok=True)
    for p in tasks:
        tests = zip(p.test_inputs, solutions[p.id], strict=True)
        said = {
            "train": [{"input": pair.input, "output": pair.output} for pair in p.demonstrations],
            "test": [{"input": given, "output": output} for given, output in tests],
        }
        (folder / f"{p.id}.json").write_text(json.dumps(said))
    return folder
