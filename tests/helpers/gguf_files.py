"""GGUF files as llama.cpp's converter writes them, of small models with random weights and a tokenizer of bytes."""

import gguf
import numpy as np
import torch
from helpers.records import TINY
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.convert_slow_tokenizer import bytes_to_unicode

TOKENS = [*bytes_to_unicode().values(), "Ġt", "<|end|>"]
_NORMAL, _CONTROL = 1, 3


def random_model(kind="llama", **changes):
    """A model of two layers whose biases and norms are not all alike."""
    settings = {**TINY, **changes}
    del settings["model_type"]
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings)).eval()
    with torch.no_grad():
        for param in model.parameters():
            if param.dim() == 1:
                param.add_(torch.randn_like(param) * 0.1)
    return model


def write(path, model, quantization="F32", **changes):
    """Writes `model` to `path`, matrices of layers as `quantization`. Changes: the names of `tokenizer` and
    `architecture`, whether it has an `end`, names of `extra` tensors and of those `left_out`, and `metadata` to add
    or, where it is None, to leave out."""
    config = model.config
    tokenizer, end = changes.get("tokenizer", "gpt2"), changes.get("end", True)
    extra, left_out = changes.get("extra", ()), changes.get("left_out", ())
    writer = gguf.GGUFWriter(path, changes.get("architecture", config.model_type))
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim if hasattr(config, "head_dim") else 16)
    writer.add_rope_dimension_count(16)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if tokenizer:
        writer.add_tokenizer_model(tokenizer)
        writer.add_tokenizer_pre("qwen2")
        writer.add_token_list(TOKENS)
        writer.add_token_types([_NORMAL] * (len(TOKENS) - 1) + [_CONTROL])
        writer.add_token_merges(["Ġ t"])
        writer.add_bos_token_id(len(TOKENS) - 1)  # transformers 5.0 reads no tokenizer without it
        if end:
            writer.add_eos_token_id(len(TOKENS) - 1)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[config.model_type.upper()], config.num_hidden_layers)
    for name, values in tensors(model).items():
        stem, _, suffix = name.rpartition(".")
        if (called := f"{names.get_name(stem)}.{suffix}") in left_out:
            continue
        quantized = gguf.GGMLQuantizationType[quantization] if values.ndim == 2 and "layers" in name else None
        data = gguf.quants.quantize(values, quantized) if quantized else values
        writer.add_tensor(called, data, raw_dtype=quantized)
    for name in extra:
        writer.add_tensor(name, np.ones(8, dtype=np.float32))
    for key, value in changes.get("metadata", {}).items():
        writer.kv_data[0].pop(key, None)
        if value is not None:
            writer.add_key_value(key, value, gguf.GGUFValueType.get_type(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tensors(model):
    """The model's tensors under transformers' names, the rows of Llama's queries and keys in llama.cpp's order."""
    config, out = model.config, {}
    for name, param in model.named_parameters():
        values = param.detach().numpy()
        if config.model_type == "llama" and ("q_proj" in name or "k_proj" in name):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            pairs = values.reshape(heads, 2, len(values) // heads // 2, *values.shape[1:])
            values = pairs.swapaxes(1, 2).reshape(values.shape)
        out[name] = values
    return out


def rounded(model, quantization):
    """`model` with the matrices of its layers as they come back from `quantization`."""
    kind = gguf.GGMLQuantizationType[quantization]
    for name, param in model.named_parameters():
        if param.dim() == 2 and "layers" in name:
            values = gguf.quants.dequantize(gguf.quants.quantize(param.detach().numpy(), kind), kind)
            param.data = torch.from_numpy(values)
    return model
