"""A config.json as transformers understands it: defaults, its own encoding of numbers, and multimodal models' text."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForMultimodalLM,
    AyaVisionConfig,
    BambaConfig,
    Gemma3Config,
    LlavaConfig,
    MistralConfig,
    Qwen3NextConfig,
)

from harness.catalog import precisions
from harness.errors import Unsupported
from harness.records.cell import ModelSpec, Recipe
from harness.train import model as models
from harness.train import random_init

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
         "num_attention_heads": 2, "num_key_value_heads": 2}  # fmt: skip
VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
          "image_size": 16, "patch_size": 8}  # fmt: skip
MULTIMODAL = {
    "gemma3": Gemma3Config(
        text_config=SIZES | {"head_dim": 16, "pad_token_id": 0}, vision_config=VISION, mm_tokens_per_image=4
    ),
    "aya_vision": AyaVisionConfig(
        text_config=SIZES | {"model_type": "cohere2", "logit_scale": 0.25}, tie_word_embeddings=True,
        vision_config=VISION | {"model_type": "siglip_vision_model"},
    ),
    "llava": LlavaConfig(
        text_config=SIZES | {"model_type": "llama"}, vision_config=VISION | {"model_type": "clip_vision_model"},
        tie_word_embeddings=True,
    ),
}  # fmt: skip
CONFIGS = {
    "hybrid": BambaConfig(**SIZES, mamba_n_heads=4, mamba_d_head=16, attn_layer_indices=[1]),
    "rope_parameters": Qwen3NextConfig(**SIZES, head_dim=16, layer_types=["linear_attention", "full_attention"]),
    "ministral": MistralConfig(**SIZES, layer_types=["sliding_attention", "full_attention"], head_dim=16),
}
CPU, FP32 = torch.device("cpu"), precisions.find("fp32")


def _spec(folder) -> ModelSpec:
    return ModelSpec("m", json.loads((folder / "config.json").read_text()), 64, path=str(folder))


def _load(folder, weights):
    return models.load(_spec(folder), FP32, "fp32", Recipe(lora_r=2), weights, CPU)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_is_read_as_transformers_reads_it(name, tmp_path):
    CONFIGS[name].save_pretrained(tmp_path)
    assert (name == "hybrid") == ("__float__" in (tmp_path / "config.json").read_text())  # an infinity
    ours, theirs = random_init.config_of(_spec(tmp_path)).to_dict(), AutoConfig.from_pretrained(tmp_path).to_dict()
    for config in (ours, theirs):
        config.pop("_name_or_path", None)
    assert ours == theirs
    random_init.on_meta(_spec(tmp_path), torch.float32)


def test_what_a_config_leaves_out_has_transformers_defaults(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama", "hidden_size": 64}')
    config = random_init.config_of(_spec(tmp_path))
    assert (config.hidden_size, config.vocab_size, config.max_position_embeddings) == (64, 32000, 2048)


def test_a_config_that_contradicts_itself_is_refused_with_the_reason():
    spec = ModelSpec("odd", {"model_type": "llama", "hidden_size": 30, "num_attention_heads": 4}, 64)
    with pytest.raises(Unsupported, match="The hidden size"):
        random_init.config_of(spec)


@pytest.mark.parametrize("name", MULTIMODAL)
def test_of_a_multimodal_model_the_text_part_is_trained(name, tmp_path):
    """From weights on disk it says what the whole says of text alone; random ones have its layout; both say so."""
    torch.manual_seed(0)
    whole = AutoModelForMultimodalLM.from_config(MULTIMODAL[name]).eval()
    whole.save_pretrained(tmp_path)
    ids = torch.arange(5, 25)[None]
    loaded, random = _load(tmp_path, str(tmp_path)), _load(tmp_path, "random")
    with torch.no_grad():
        logits = loaded.model.get_base_model().eval()(input_ids=ids, use_cache=False).logits
        torch.testing.assert_close(logits, whole(input_ids=ids).logits)
    assert loaded.params == random.params < sum(p.numel() for p in whole.parameters())
    for made in (loaded, random):
        assert made.adapted == "q_proj k_proj v_proj o_proj"
        assert any("the text part alone" in note for note in made.notes)


def test_a_multimodal_models_vocabulary_is_trimmed_too():
    spec = ModelSpec("m", {"model_type": "gemma3", "text_config": {**SIZES, "head_dim": 16}}, 64)
    trimmed = random_init.config_of(models.as_measured(spec, Recipe(trim_vocab=True)))
    assert trimmed.vocab_size == models.trim_vocab.RANDOM_SIZE
    assert trimmed.hidden_size == 32


def test_weights_that_are_not_whole_are_refused(tmp_path):
    """transformers would fill the gap with random values and warn."""
    AutoModelForMultimodalLM.from_config(MULTIMODAL["gemma3"]).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    save_file({name: t for name, t in tensors.items() if "layers.1.mlp.up_proj" not in name}, path, {"format": "pt"})
    with pytest.raises(Unsupported, match=r"not whole: 1 tensors are missing, as model.layers.1.mlp.up_proj.weight"):
        _load(tmp_path, str(tmp_path))


def test_what_a_model_makes_on_the_cpu_goes_to_meta_too():
    """XLNet's attention does not heed the device that it is built on."""
    spec = ModelSpec("m", {"model_type": "xlnet", "d_model": 32, "n_layer": 1, "n_head": 2, "vocab_size": 64}, 64)
    model = random_init.on_meta(spec, torch.bfloat16)
    assert {(p.is_meta, p.dtype) for p in model.parameters()} == {(True, torch.bfloat16)}
