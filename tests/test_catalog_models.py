import json
import re

import pytest

from harness.catalog import model_folder, precisions, weights
from harness.catalog import models as catalog
from harness.errors import UserError
from harness.records.cell import MLP, ModelSpec, Recipe
from harness.records.measurement import MatmulSpeed

GOOD = """\
defaults:
  model: a
  precisions: [fp16, int4]
  contexts: {cuda: [1024], cpu: [256]}
  budget_hours: 12
  steps: 1000
  test_tasks: 400
  sample_seconds: {cuda: 60, cpu: 60}
  cap_seconds: {cuda: 300, cpu: 180}
recipe:
  lora_r: 32
  lora_alpha: 64
  lora_dropout: 0.0
  lora_targets: attention
  sequences_per_step: 16
  micro_batch: 1
  learning_rate: 5.0e-5
  optimizer: adamw
  gradient_checkpointing: false
  answer_share: 0.12
ttft:
  set: arc1-evaluation
  grid_limit: 30
  tasks: 20
  steps: 64
  context: 2048
  views: 2
models:
  a:
    aliases: [b]
    window: 2048
    architecture:
      model_type: llama
      hidden_size: 64
      intermediate_size: 128
      num_hidden_layers: 2
      num_attention_heads: 4
      num_key_value_heads: 2
      vocab_size: 320
      tie_word_embeddings: true
"""


def _load(tmp_path, text):
    path = tmp_path / "models.yaml"
    path.write_text(text)
    return catalog.load(path)


def test_reads_what_is_there(tmp_path):
    loaded = _load(tmp_path, GOOD)
    assert loaded.recipe == Recipe()
    assert loaded.find("b") is loaded.models["a"]
    assert loaded.find("a").architecture["max_position_embeddings"] == 2048


@pytest.mark.parametrize(("written", "read"), [("true", "all"), ("false", "none"), ("mlp", MLP), ("all", "all")])
def test_checkpointing_is_of_all_or_of_the_mlps(tmp_path, written, read):
    text = GOOD.replace("checkpointing: false", f"checkpointing: {written}")
    assert _load(tmp_path, text).recipe == Recipe(gradient_checkpointing=read)


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("  lora_r: 32\n", "  lora_r: 32\n  lora_rank: 3\n", ["line 12", "recipe.lora_rank", "not a known key"]),
        ("  lora_r: 32\n", "", ["recipe.lora_r", "is missing"]),
        ("lora_r: 32", "lora_r: '32'", ["line 11", "recipe.lora_r", "whole number"]),
        ("lora_r: 32", "lora_r: yes", ["line 11", "recipe.lora_r", "whole number"]),
        ("lora_r: 32", "lora_r: -1", ["line 11", "recipe.lora_r"]),
        ("lora_r: 32", "lora_r: 0", ["recipe.lora_r must be a whole number from 1 to 65,536"]),
        ("budget_hours: 12", "budget_hours: -12", ["line 5", "defaults.budget_hours"]),
        ("answer_share: 0.12", "answer_share: 1.5", ["recipe.answer_share"]),
        ("micro_batch: 1", "micro_batch: 3", ["sequences_per_step", "multiple"]),
        ("checkpointing: false", "checkpointing: some", ["recipe.gradient_checkpointing", "none, mlp, all"]),
        ("optimizer: adamw", "optimizer: sgd", ["recipe.optimizer", "adamw"]),
        ("precisions: [fp16, int4]", "precisions: [fp17]", ["defaults.precisions", "fp17"]),
        ("precisions: [fp16, int4]", "precisions: fp16", ["line 3", "defaults.precisions", "a list"]),
        ("cpu: [256]", "cpu: [256.5]", ["line 4", "defaults.contexts.cpu"]),
        ("aliases: [b]", "aliases: [a]", ["models.a", "'a'"]),
        ("  a:\n", "  ../a:\n", ["line", "'../a'"]),
        ("    window: 2048\n", "    window: 2048\n    window: 4096\n", ["line 32", "models.a.window", "twice"]),
        ("model: a", "model: c", ["defaults.model", "'c'"]),
        ("hidden_size: 64", "hiden_size: 64", ["models.a.architecture", "hidden_size", "missing"]),
        ("  test_tasks: 400\n", "", ["line 2", "defaults.test_tasks", "is missing"]),
        ("test_tasks: 400", "test_tasks: many", ["line 7", "defaults.test_tasks", "whole number"]),
        (GOOD[GOOD.index("ttft:") : GOOD.index("models:")], "", ["ttft", "is missing"]),
        ("  tasks: 20\n", "", ["line 22", "ttft.tasks", "is missing"]),
        ("  tasks: 20\n", "  tasks: 20\n  taks: 20\n", ["line 25", "ttft.taks", "not a known key"]),
        ("steps: 64", "steps: 0", ["ttft.steps", "from 1 to"]),
        ("steps: 64", "steps: -1", ["line 25", "ttft.steps"]),
        ("set: arc1-evaluation", "set: 7", ["line 22", "ttft.set", "a text"]),
        ("  views: 2\n", "  views: 2\n  learning_rate: 0\n", ["ttft.learning_rate", "above 0"]),
        ("    aliases: [b]\n", "    ttft: {step: 3}\n", ["line 30", "models.a.ttft.step", "not a known key"]),
        ("    aliases: [b]\n", "    ttft: {views: 0}\n", ["models.a.ttft.views", "from 1 to"]),
        ("    aliases: [b]\n", "    ttft: 3\n", ["line 30", "models.a.ttft", "a mapping"]),
        ("hidden_size: 64", "hiden_size: 64", ["line 34", "hiden_size is not a known key; missing: hidden_size"]),
        (
            "hidden_size: 64",
            "hidden_size: 64\n      sliding_window: yes",
            ["line 35", "sliding_window", "whole number"],
        ),
        ("vocab_size: 320", "vocab_size: 320.0", ["line 39", "vocab_size", "whole number"]),
        ("budget_hours: 12", "budget_hours: .inf", ["line 5", "defaults.budget_hours", "inf"]),
        ("model: a", "model: 2024-13-45", ["line 2", "defaults.model", "2024-13-45"]),
        ("model: a", "model: &x [*x]", ["nested deeper than 32 levels"]),
        ("models:\n", "models:\n  z:\n", ["line 29", "models.z", "a mapping"]),
        ("defaults:", "defaults: [", ["line", "not YAML"]),
        (GOOD, "", ["empty"]),
        (GOOD, "- a\n", ["mapping"]),
    ],
)
def test_a_broken_file_is_one_line_that_says_where(tmp_path, old, new, parts):
    assert old in GOOD
    with pytest.raises(UserError) as error:
        _load(tmp_path, GOOD.replace(old, new, 1))
    assert all(part in str(error.value) for part in ["models.yaml", *parts]), str(error.value)
    assert "\n" not in str(error.value)


def test_a_model_may_say_otherwise_how_it_is_fine_tuned(tmp_path):
    """What its block says, and the file's values for the rest; nobody else is touched."""
    own = "    ttft: {grid_limit: 10, learning_rate: 1.0e-3}\n"
    loaded = _load(
        tmp_path, GOOD.replace("    aliases: [b]\n", own) + GOOD[GOOD.index("  a:\n") :].replace("  a:", "  c:")
    )
    whole = catalog.TuneDefaults(set="arc1-evaluation", grid_limit=30, tasks=20, steps=64, context=2048, views=2)
    assert loaded.ttft == loaded.ttft.of(loaded.find("c")) == whole
    assert loaded.ttft.of(loaded.find("a")) == whole.override(grid_limit=10, learning_rate=1e-3)
    assert loaded.defaults.test_tasks == 400


def test_a_model_named_twice_is_refused(tmp_path):
    block = GOOD[GOOD.index("  a:\n") :]
    with pytest.raises(UserError, match=r"line 41: models\.a is given twice"):
        _load(tmp_path, GOOD + block)


def test_unreadable_files(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        catalog.load(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"UTF-8|YAML"):
        catalog.load(tmp_path / "bytes.yaml")


@pytest.mark.parametrize(
    "name", ["./my-model", "../qwen", "~/my-model", "/kaggle/input/qwen", "models/qwen/1", "my-model/"]
)
def test_a_folder_that_is_not_there_is_no_misspelt_name(shipped, name):
    with pytest.raises(UserError, match=f"no folder '{name}' here; name one with a config.json, or a model of "):
        shipped.find(name)


def test_unknown_model_names_the_nearest(shipped):
    with pytest.raises(UserError, match=r"qwen-0\.5b"):
        shipped.find("qwn-0.5b")


def test_users_spelling(shipped):
    assert shipped.find("qwen-0.5b").hub_id == "Qwen/Qwen2.5-0.5B-Instruct"
    assert shipped.find("Qwen/Qwen2.5-0.5B-Instruct").name == "qwen2.5-0.5b"
    assert len(shipped.models) == 21


def test_every_shipped_model_has_the_published_size(shipped):
    """Built on the meta device; the published counts hold to 0.1 %."""
    import torch

    from harness.train.random_init import on_meta

    for spec in shipped.models.values():
        params = sum(p.numel() for p in on_meta(spec, torch.float32).parameters())
        assert params / 1e6 == pytest.approx(spec.params_m, rel=1e-3), spec.name


def test_a_folder_with_a_config_is_a_model(shipped, tiny_folder):
    spec = shipped.find(str(tiny_folder))
    assert (spec.name, spec.max_context, spec.path) == ("tiny", 256, str(tiny_folder))


def test_weights_auto_takes_what_is_there(tiny_folder, tmp_path):
    spec = model_folder.from_folder(tiny_folder)
    assert re.fullmatch(rf"files:[0-9a-f]{{8}}@{tiny_folder}", weights.resolve(spec, "auto"))
    assert weights.resolve(spec, "random") == "random"
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text((tiny_folder / "config.json").read_text())
    assert weights.resolve(model_folder.from_folder(bare), "auto") == "random"
    with pytest.raises(UserError, match="safetensors"):
        weights.resolve(spec, str(bare))
    with pytest.raises(UserError, match="no hub_id"):
        weights.resolve(spec, "hub")
    with pytest.raises(UserError, match="none of auto"):
        weights.resolve(spec, str(tmp_path / "nowhere"))


def test_weights_of_another_architecture_are_refused(tiny_folder):
    spec = ModelSpec("other", {"model_type": "llama", "hidden_size": 128}, 256)
    with pytest.raises(UserError, match="hidden_size 64, but other has 128"):
        weights.resolve(spec, str(tiny_folder))


def test_weights_from_the_hubs_cache(tiny_folder, tmp_path, monkeypatch):
    """A cache as the hub's client lays it out: refs/main names the snapshot."""
    import huggingface_hub.constants

    cache = tmp_path / "hub"
    repo = cache / "models--maker--model"
    snapshot = repo / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    (snapshot / "config.json").write_text((tiny_folder / "config.json").read_text())
    spec = ModelSpec("model", {"model_type": "llama"}, 256, hub_id="maker/model")
    assert weights.resolve(spec, "auto") == "random"
    with pytest.raises(UserError, match="maker/model cannot be downloaded"):
        weights.resolve(spec, "hub")
    (snapshot / "model.safetensors").write_bytes((tiny_folder / "model.safetensors").read_bytes())
    assert weights.resolve(spec, "auto") == str(snapshot)
    (snapshot / "model.safetensors").rename(snapshot / "model-1.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    assert weights.resolve(spec, "auto") == "random"  # a download that broke off


def test_native_dtype():
    fast, slow = MatmulSpeed(65e12, 65e12, True), MatmulSpeed(8e12, 8e12, True)
    t4 = {"fp32": slow, "fp16": fast, "bf16": MatmulSpeed(4e12, 4e12, False)}
    assert precisions.native_dtype(t4) == "fp16"
    assert precisions.native_dtype({"fp32": slow, "fp16": MatmulSpeed(1e9, 1e9, False)}) == "fp32"
    assert precisions.compute_dtype(precisions.find("int4"), t4) == "fp16"
    assert precisions.compute_dtype(precisions.find("bf16"), t4) == "bf16"
    with pytest.raises(UserError, match="int4"):
        precisions.find("int5")


def test_what_is_not_given_overrides_nothing(shipped):
    assert shipped.ttft.override(steps=None, views=None) == shipped.ttft
    assert shipped.ttft.override(steps=3, views=None).steps == 3
    assert shipped.ttft.override(steps=3).views == shipped.ttft.views


def test_seconds_of_int8_without_real_activations_are_a_lower_bound_on_a_card():
    sentence = precisions.lower_bound(precisions.find("int8"), "cuda")
    assert "lower bound" in sentence and "above 6" in sentence
    assert not precisions.lower_bound(precisions.find("int8"), "cpu")
    assert not any(precisions.lower_bound(p, "cuda") for p in precisions.PRECISIONS.values() if p.name != "int8")
