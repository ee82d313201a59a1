"""A model ready to train: built or loaded, quantised, with its adapter."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM

from harness.catalog.kernels import ATTENTION, POINTWISE
from harness.catalog.precisions import Precision
from harness.catalog.weights import RANDOM, folder, is_gguf
from harness.errors import Unsupported, first_line
from harness.hardware.device import TORCH_DTYPES
from harness.records.cell import REFERENCE, ModelSpec, Recipe
from harness.train import adapter, check, confirm, distributed, gguf_weights, recompute, special_tokens, trim_vocab
from harness.train.adapter import adapted_names, add_adapter
from harness.train.compat import bitsandbytes_for, keep_freed, quiet
from harness.train.ops import attention, autoselect, nf4_cpu
from harness.train.quantize import bnb_config
from harness.train.random_init import random_model, text_part

# What reading a broken or foreign file of weights or configuration ends in.
_BAD_FILES = (ValueError, LookupError, TypeError, AttributeError, OSError, SafetensorError)

# Names of the text part's tensors in a multimodal checkpoint -> those of the causal language model alone.
_TEXT_KEYS = {
    r"^(model\.)?(language_model|text_model)\.model\.": "model.",
    r"^(model\.)?language_model\.lm_head\.": "lm_head.",
    r"^model\.(language_model|text_model)\.": "model.",
}


@dataclass(frozen=True)
class Loaded:
    model: Any  # of PEFT
    params: int  # of the base, as published: quantised ones counted as values, tied ones once
    trainable_params: int
    unpatched: tuple[str, ...] = ()  # modules left to transformers, because our replacement computes something else
    kernels: str = ""  # what harness.train.ops.autoselect chose; empty for the reference, which has no choice
    kernel_notes: tuple[str, ...] = ()  # sentences on how the kernels were chosen, with their seconds
    notes: tuple[str, ...] = ()  # sentences on what the model is, whatever the device
    adapted: str = ""  # names of the modules with an adapter
    trial: confirm.Trial | None = None  # of kernels that were chosen alone and not yet in a step


def load(
    spec: ModelSpec,
    precision: Precision,
    compute: str,
    recipe: Recipe,
    weights: str,
    device: torch.device,
    seed: int = 0,
) -> Loaded:
    """The model on `device` in `precision`, frozen, with a trainable adapter.

    `weights` is what harness.catalog.weights.resolve gave. Quantising goes matrix by matrix, so that the device never
    holds the full-precision model beside the quantised one. Raises Unsupported, and torch's own out-of-memory errors.
    """
    torch.manual_seed(seed)
    if device.type == "cpu" and recipe.implementation != REFERENCE:
        keep_freed()
    dtype = TORCH_DTYPES[compute]
    # The frozen base.
    model: Any
    if weights == RANDOM:
        model = random_model(as_measured(spec, recipe), precision, dtype, device)
    else:
        where = folder(weights)
        model = (gguf_weights.load if is_gguf(where) else _pretrained)(where, precision, dtype, device)
        if recipe.trim_vocab:
            special_tokens.must_fit(load_tokenizer(weights), model)
            trim_vocab.trim(model, _used_token_ids(weights))
    # The base is counted before it gets an adapter.
    params = count_params(model)
    experts = sum(p.numel() for p in model.parameters() if p.dim() == 3)  # bitsandbytes quantises matrices alone
    nf4_cpu.repair(model)
    if recipe.prepared_for_kbit and precision.quantized:
        adapter.prepare_for_kbit(model)
    model.requires_grad_(False)
    model = add_adapter(model, recipe)
    # Its kernels: transformers' own, or the fastest here that compute the same.
    unpatched: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    if precision.quantization and experts:
        notes += (
            f"{precision.name} leaves the routed experts, {100 * experts / params:.0f} % of the model, in {compute}",
        )
    kernels = ""
    kernel_notes: tuple[str, ...] = ()
    trial = None
    if recipe.implementation == REFERENCE:
        check.use_plain_attention(model)
    else:
        support = check.supported(model.config, recipe)
        shapes = autoselect.Shapes.of(model.config.get_text_config())
        choice = distributed.from_first(lambda: autoselect.choose_kernels(recipe.kernels, shapes, device, dtype))
        own_forwards = confirm.forwards(model)
        attention.set_kernel(model, choice.of[ATTENTION])
        with quiet():  # kernels are compiled here
            if support == check.UNCHECKED:
                check.must_be_causal(model)
            unpatched, kernels = tuple(check.apply(model, support, choice.of[POINTWISE])), str(choice)
        kernel_notes = choice.notes
        if shapes and choice.plain:
            trial = confirm.Trial(choice, support, own_forwards, shapes)
        if support.reason:
            kernels += f" transformers={support.reason.replace(', ', '+')}"
            notes += (f"left to transformers, because ours would learn something else here: {support.reason}",)
        if unpatched:
            notes += (f"computed by transformers, more slowly, for ours would differ: {', '.join(unpatched)}",)
    notes += adapter.notes(model, recipe)
    if spec.architecture.get("model_type") != model.config.model_type and "text_config" in spec.architecture:
        notes += (f"of this multimodal model the text part alone ({model.config.model_type}) is loaded and trained",)
    recompute.apply(model, recipe.gradient_checkpointing)
    with quiet():
        model.train()
    trainable_params = sum(p.numel() for p in model.parameters() if p.requires_grad)
    distributed.must_agree("dtype and kernels", (compute, kernels))
    adapted = adapted_names(model)
    return Loaded(model, params, trainable_params, unpatched, kernels, kernel_notes, notes, adapted, trial)


def confirmed(loaded: Loaded, recipe: Recipe, device: torch.device, context: int) -> Loaded:
    """`loaded` with the kernels that were chosen alone, if they are the faster ones in a micro-step too, else with the
    plain ones: tried for seconds on at most `context` tokens, once per device, dtype and shapes, then cached."""
    if loaded.trial is None:
        return loaded
    outcome = confirm.confirm(loaded.model, loaded.trial, recipe, device, context)
    before, after = str(loaded.trial.choice), outcome.kernels
    return replace(
        loaded,
        kernels=loaded.kernels.replace(before, after, 1),
        kernel_notes=(*loaded.kernel_notes, *outcome.notes),
        unpatched=loaded.unpatched if outcome.unpatched is None else outcome.unpatched,
        trial=None,
    )


def attention_ran(model: Any, device: torch.device, tokens: int) -> tuple[str, ...]:
    """On a card: a sentence on which of torch's backends attends a sequence of `tokens` tokens in `model`, a PeftModel.

    "attention=sdpa" alone leaves that to the card, the dtype and the versions of torch and cuDNN.
    """
    shapes = autoselect.Shapes.of(model.get_base_model().config.get_text_config())
    if device.type != "cuda" or shapes is None:
        return ()
    dtype, kernel = model.get_input_embeddings().weight.dtype, attention.kernel_of(model)
    heads = (shapes.heads, shapes.kv_heads, shapes.kv_heads)
    try:
        parts = [torch.empty(1, n, tokens, shapes.head_dim, dtype=dtype, device=device).requires_grad_() for n in heads]
        backend = attention.backend(kernel, *parts)
    except (RuntimeError, AttributeError) as problem:  # torch's own function for it is not public
        return (f"which of torch's backends attends is not known: {first_line(problem)}",)
    return (f"attention of {tokens} tokens runs in torch's {backend} backend",)


def as_measured(spec: ModelSpec, recipe: Recipe) -> ModelSpec:
    """`spec` as it is built without weights: where the recipe trims the vocabulary, without the rows to be cut."""
    if not recipe.trim_vocab:
        return spec
    cut: dict[str, Any] = {"vocab_size": trim_vocab.RANDOM_SIZE, "pad_token_id": None}
    # A multimodal model's text part has a config of its own.
    if isinstance(text := spec.architecture.get("text_config"), dict):
        cut |= {"text_config": text | cut}
    return replace(spec, architecture=spec.architecture | cut)


def tokenizer_for(weights: str, recipe: Recipe) -> Any:
    """The tokenizer beside `weights`, cut to the kept tokens where the recipe trims the vocabulary."""
    tokenizer = load_tokenizer(weights)
    return trim_vocab.TrimmedTokenizer(tokenizer, _used_token_ids(weights)) if recipe.trim_vocab else tokenizer


@lru_cache(maxsize=1)
def _used_token_ids(weights: str) -> list[int]:
    """The token ids that model and tokenizer are both trimmed to. Cached, because a large vocabulary takes seconds."""
    return trim_vocab.used_token_ids(load_tokenizer(weights))


def load_tokenizer(weights: str) -> Any:
    """The tokenizer beside `weights`. Raises Unsupported where there is none with an end-of-text token."""
    from transformers import AutoTokenizer

    where = folder(weights)
    source = gguf_weights.source(where) if is_gguf(where) else (where, {})
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                source[0], local_files_only=True, trust_remote_code=False, **source[1]
            )
            digits = tokenizer("012").input_ids
            if is_gguf(where):
                gguf_weights.must_be_as_said(where, tokenizer)
    except Exception as problem:  # of a file that is none of theirs, the libraries raise whatever they like
        raise Unsupported(f"no tokenizer at {where}: {first_line(problem)}") from None
    # transformers makes an empty one from a config.json alone.
    if not digits:
        raise Unsupported(f"the tokenizer at {where} has no tokens for digits; put the model's own beside its weights")
    if tokenizer.eos_token_id is None:
        raise Unsupported(f"the tokenizer at {where} has no end-of-text token; set eos_token in tokenizer_config.json")
    return tokenizer


def _pretrained(
    where: str, precision: Precision, dtype: torch.dtype, device: torch.device
) -> transformers.PreTrainedModel:
    """The weights in the folder `where`; of a multimodal model those of its text part alone."""
    quantization = None
    if precision.quantization:
        bitsandbytes_for(device)  # raises where it cannot use the device
        quantization = bnb_config(precision.quantization, dtype)
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        with quiet():
            config = AutoConfig.from_pretrained(where, **local)
            if getattr(config, "quantization_config", None):
                raise Unsupported(f"weights at {where} are quantised already; name a folder of the unquantised ones")
            text = text_part(config)
            own = {"config": text, "key_mapping": _TEXT_KEYS} if text else {}
            for part in (config, config.get_text_config(decoder=True)):
                if "/" in str(part._attn_implementation):  # the hub's, which is code that would be fetched
                    part._attn_implementation = "sdpa"
                    own = own or {"config": config}
            both: Any = AutoModelForCausalLM.from_pretrained(
                where,
                dtype=dtype,
                device_map={"": device},
                use_safetensors=True,
                quantization_config=quantization,
                output_loading_info=True,
                **local,
                **own,
            )
    except (*_BAD_FILES, ImportError, StrictDataclassError) as problem:
        raise Unsupported(f"weights at {where} do not load: {first_line(problem)}") from None
    model, loading = both
    # transformers would go on with random values.
    if missing := sorted(loading["missing_keys"]):
        raise Unsupported(f"weights at {where} are not whole: {len(missing)} tensors are missing, as {missing[0]}")
    return model


def count_params(model: torch.nn.Module) -> int:
    """Values in the base of `model`. A packed 4-bit matrix counts its values, not its bytes; tied ones count once."""
    total = 0
    for name, param in model.named_parameters():
        if "lora_" not in name:
            state = getattr(param, "quant_state", None)
            total += state.shape.numel() if state is not None else param.numel()
    return total
