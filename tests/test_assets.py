"""The model that comes with the program: small, loaded as any other, and what models.yaml says it is."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import torch

from harness.catalog import model_folder, precisions, weights
from harness.errors import UserError
from harness.records.cell import Recipe
from harness.train import model as models

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "harness" / "assets" / "arc-tiny"


@pytest.fixture(scope="module")
def spec(shipped):
    return shipped.find("arc-tiny")


def test_it_is_the_default_and_its_weights_are_found_without_asking(shipped, spec):
    assert shipped.find(shipped.defaults.model) is spec
    named = weights.resolve(spec, "auto")
    assert re.fullmatch(r"bundled:arc-tiny@[0-9a-f]{8}", named)
    assert Path(weights.folder(named)) == FOLDER
    assert weights.resolve(spec, "random") == "random"
    assert weights.folder(str(FOLDER)) == str(FOLDER)
    with pytest.raises(UserError, match="has no folder /elsewhere"):
        weights.folder("/elsewhere")


def test_the_folder_is_small_and_holds_nothing_that_runs():
    files = {path.name: path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()}
    assert sum(files.values()) < 12e6
    needed = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
    assert files.keys() - {"README.md", "log.jsonl", "tokenizer_config.json", "special_tokens_map.json"} == needed
    config = json.loads((FOLDER / "config.json").read_text())
    assert "auto_map" not in config and not list(FOLDER.glob("*.py"))


def test_it_has_a_card():
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "arc-tiny" in card and "make tiny" in card


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_no_file_of_it_is_ignored_by_git():
    """What git ignores is in no checkout, and in no wheel either."""
    ignored = subprocess.run(
        ["git", "check-ignore", *FOLDER.iterdir()], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (ignored.returncode, ignored.stdout) == (1, "")


def test_models_yaml_says_what_its_config_says(spec):
    config = json.loads((FOLDER / "config.json").read_text())
    assert {name: config[name] for name in spec.architecture} == spec.architecture
    assert config["max_position_embeddings"] == spec.max_context
    assert config["architectures"] == ["LlamaForCausalLM"]


def test_it_loads_and_answers_with_tokens(spec):
    named = weights.resolve(spec, "auto")
    loaded = models.load(spec, precisions.find("fp32"), "fp32", Recipe(), named, torch.device("cpu"))
    assert loaded.params / 1e6 == pytest.approx(spec.params_m, rel=1e-3)
    assert all(torch.isfinite(p).all() for p in loaded.model.parameters())
    tokens = models.load_tokenizer(named)
    assert len(tokens) == spec.architecture["vocab_size"]
    ids = torch.tensor([tokens("<s>Input 1:\n12\nOutput 1:\n", add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        logits = loaded.model(input_ids=ids, use_cache=False).logits
    assert logits.shape == (1, 5, len(tokens)) and torch.isfinite(logits).all()
    assert logits[0, -1].softmax(-1)[4:14].sum() > 0.9  # after the words for an output it expects a digit


def test_its_tokenizer_is_the_programs_own(spec):
    from harness.arc.prompt import build
    from harness.arc.task import Pair
    from harness.tiny.model import SYMBOLS, tokenizer

    loaded, made = models.load_tokenizer(weights.resolve(spec, "auto")), tokenizer()
    assert loaded.convert_ids_to_tokens(list(range(len(SYMBOLS)))) == list(SYMBOLS)
    assert (loaded.bos_token, loaded.eos_token, loaded.pad_token) == (made.bos_token, made.eos_token, made.pad_token)
    pairs = (Pair(((1, 2), (3, 4)), ((5,),)),)
    for encoding in ("rows", "spaced", "numbered", "shaped"):
        ours, theirs = (build(t, pairs, ((6, 7),), ((8,),), encoding) for t in (loaded, made))
        assert ours == theirs


def test_a_folder_of_its_name_is_itself(spec):
    """Named by its path it has its own config, and the same weights by another name."""
    named = model_folder.from_folder(FOLDER)
    assert weights.without_digest(weights.resolve(named, "auto")) == str(FOLDER)
    assert {name: named.architecture[name] for name in spec.architecture} == spec.architecture
