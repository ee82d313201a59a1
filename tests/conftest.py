"""Fixtures: a world of the tests' own, and models small enough to train in a test."""

import os
import random
import tempfile
from contextlib import nullcontext
from pathlib import Path

import pytest
from helpers import kept
from helpers.records import TINY
from helpers.tasks import random_grid

from harness.arc.task import Pair
from harness.catalog import models as catalog
from harness.records.cell import ModelSpec

ROOT = Path(__file__).parents[1]
# What a user's shell may say, and would change what the tests see: a terminal's kind and size, encodings, caches.
_SHELL = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE",
          "TTY_INTERACTIVE", "PYTHONIOENCODING", "LC_ALL", "LC_CTYPE", "LANG", "RANK", "WORLD_SIZE",
          "SLURM_ARRAY_TASK_ID", "SKYPILOT_JOB_RANK", "JOB_COMPLETION_INDEX", "CUDA_VISIBLE_DEVICES",
          "XDG_CACHE_HOME", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_TOKEN", "TRANSFORMERS_CACHE")  # fmt: skip


# Files of few and long tests: begun last, one process would be left with them.
_LONG = ("kill", "end_to_end", "fuzz", "notebooks", "train_distributed", "ray_runs", "solve_run", "solve_plan",
         "workers_process", "cli_ttft", "cli", "import_log", "workers_ray")  # fmt: skip


def pytest_configure():
    # Torch reads it when it is imported. A header would lie in every temporary folder, 150 MB each, and take longer to
    # make than it saves the few kernels here.
    os.environ["TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS"] = "0"


def pytest_collection_modifyitems(items):
    places = {f"test_{name}.py": place for place, name in enumerate(_LONG)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.fixture(autouse=True, scope="session")
def own_world(tmp_path_factory):
    """A home, caches, a temporary folder and a terminal of the tests' own, whatever the user has.

    Locks of devices lie in the temporary folder: two runs of the tests on one machine do not wait for each other.
    """
    with pytest.MonkeyPatch.context() as world:
        for name in _SHELL:
            world.delenv(name, raising=False)
        home, temporary = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("tmp")
        world.setattr(tempfile, "tempdir", str(temporary))
        # With several processes of tests each has a folder in that of the run.
        run = tmp_path_factory.getbasetemp()
        compiled = (run.parent if "PYTEST_XDIST_WORKER" in os.environ else run) / "inductor"
        for name, value in {
            "HOME": home,
            "HF_HOME": home / "huggingface",
            "TTFT_BENCH_CACHE": home / "cache",
            "TMPDIR": temporary,
            # Processes that tests start run this harness, wherever they start and whichever is installed.
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
            # Compiled once for all processes of the tests, also for those with another temporary folder.
            "TORCHINDUCTOR_CACHE_DIR": compiled,
            "TERM": "xterm-256color",
            "PYTHONUTF8": 1,
        }.items():
            world.setenv(name, str(value))
        yield


@pytest.fixture(scope="session")
def keeper():
    made = kept.Keeper()
    yield made
    made.close()


@pytest.fixture(autouse=True, scope="module")
def kept_processes(request, keeper):
    """Processes that answer questions are kept between tests, but in modules that say `FRESH_PROCESSES = True`."""
    fresh = getattr(request.module, "FRESH_PROCESSES", False)
    if fresh:
        keeper.close()
    with nullcontext() if fresh else keeper.keeping():
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

    settings = dict(TINY)
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings))
    folder = tmp_path_factory.mktemp("models") / "tiny"
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def shipped() -> catalog.Catalog:
    """The models.yaml of the project."""
    return catalog.load(ROOT / "models.yaml")


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

    settings = {**TINY, "vocab_size": len(tokenizer), "max_position_embeddings": 1024}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings))
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
        made = [random_grid(rng, 2, 3) for _ in range(24)]
        pairs = [Pair(grid, grid) for grid in made]
        ids = torch.tensor([build(tokens, pairs[i : i + 2], made[i], made[i], "rows").ids for i in range(0, 24, 3)])
        labels = torch.where(torch.arange(ids.shape[1]) >= ids.shape[1] - 8, ids, -100)
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    path = tmp_path_factory.mktemp("arc") / "small"
    tiny.save(model, path)
    return path
