"""The plain side of the judge: transformers and PEFT alone, every sequence by itself, on the CPU."""

import re
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM

from harness.errors import first_line
from harness.records.cell import Recipe
from harness.train.compat import import_peft, quiet

Sequences = Sequence[tuple[Sequence[int], int]]  # (token ids, answer tokens)
LoraLayer = import_peft().tuners.lora.LoraLayer
_PREFIX = re.escape("base_model.model.")
_FORBIDDEN = ("out_proj", "conv1d")  # PEFT adapts no layer of these names in Mamba's families
_MAMBA = ("falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h")
_AROUND = ("bamba", "granitemoehybrid", "zamba2")  # it does, but their kernels go around the adapter
_NO_TEXT = ("vision", "image", "audio", "speech")


class PlainFails(Exception):
    """Plain transformers and PEFT cannot train the model."""


def all_linear(
    config: transformers.PretrainedConfig, recipe: Recipe, every: bool, dtype: torch.dtype = torch.float32
) -> Any:
    """PEFT's model with LoRA on all linear layers; without `every`, on those alone that PEFT can adapt.

    It forbids some names in Mamba's families, and takes layers for linear that derive from torch's and compute
    something else (routers, grouped projections). Layers of images and sound have none: text does not reach them.
    """
    base = _base(config, dtype)
    targets: Any = "all-linear"
    head = base.get_output_embeddings()
    plain_types = (torch.nn.Linear, transformers.pytorch_utils.Conv1D)
    linear = [name for name, m in base.named_modules() if type(m) in plain_types and m is not head]
    if blind := [name for name in linear if any(part in name for part in _NO_TEXT)]:
        targets = linear = [name for name in linear if name not in blind]
    if not every or config.model_type in _AROUND:
        forbidden = _FORBIDDEN if config.model_type in (*_MAMBA, *_AROUND) else ()
        targets = [name for name in linear if name.rpartition(".")[2] not in forbidden]
    return _adapted(base, recipe, targets)


def twin(config: transformers.PretrainedConfig, recipe: Recipe, ours: Any, dtype: torch.dtype) -> Any:
    """PEFT's model with LoRA on the same modules as `ours`, and with all its values."""
    if recipe.lora_targets == "all-linear":
        problem = ""
        for every in (True, False):
            try:
                plain = all_linear(config, recipe, every, dtype)
                problem = copy_values(ours, plain)
            except PlainFails as failure:
                problem = str(failure)
            if not problem:
                return plain
        raise PlainFails(problem)
    named = [re.escape(name) for name, module in ours.named_modules() if isinstance(module, LoraLayer)]
    plain = _adapted(_base(config, dtype), recipe, "|".join(named).replace(_PREFIX, ""))
    if problem := copy_values(ours, plain):
        raise PlainFails(problem)
    return plain


def _base(config: transformers.PretrainedConfig, dtype: torch.dtype) -> Any:
    try:
        with quiet():
            base = AutoModelForCausalLM.from_config(_text_part(config), dtype=dtype)
    except Exception as problem:
        raise PlainFails(f"{type(problem).__name__}: {first_line(problem)}") from None
    base.requires_grad_(False)
    return base


def _adapted(base: Any, recipe: Recipe, targets: str | list[str]) -> Any:
    peft = import_peft()
    lora = peft.LoraConfig(r=recipe.lora_r, lora_alpha=recipe.lora_alpha, target_modules=targets, task_type="CAUSAL_LM")
    try:
        with quiet():
            return peft.get_peft_model(base, lora).train()
    except Exception as problem:
        raise PlainFails(f"{type(problem).__name__}: {first_line(problem)}") from None


def _text_part(config: transformers.PretrainedConfig) -> transformers.PretrainedConfig:
    """The causal language model inside a multimodal one, where AutoModelForCausalLM would build the whole."""
    text, built = getattr(config, "text_config", None), AutoModelForCausalLM._model_mapping
    if type(text) not in built or (type(config) in built and built[type(config)].__name__.endswith("ForCausalLM")):
        return config
    text.tie_word_embeddings = config.tie_word_embeddings
    return text


def is_causal(plain: Any, ids: Sequence[int]) -> bool:
    """Whether a change of the last token leaves the logits of the earlier ones as they were."""
    first, second = torch.tensor([ids]), torch.tensor([[*ids[:-1], 3 if ids[-1] != 3 else 4]])
    plain.eval()
    try:
        with torch.no_grad(), quiet():
            before, after = (plain(input_ids=tokens, use_cache=False).logits[:, :-1] for tokens in (first, second))
    except Exception as problem:
        raise PlainFails(f"{type(problem).__name__}: {first_line(problem)}") from None
    finally:
        plain.train()
    return bool((before - after).abs().max() <= 1e-4 * max(1.0, float(before.abs().max())))


def step(plain: Any, sequences: Sequences, count: int) -> tuple[float, dict[str, torch.Tensor]]:
    """Mean loss, and gradients of the losses' sum by `count`, by transformers' own loss."""
    plain.zero_grad(set_to_none=True)
    total = 0.0
    try:
        for ids, answer_tokens in sequences:
            tokens = torch.tensor([ids])
            labels = tokens.clone()
            labels[:, :-answer_tokens] = -100
            with quiet():
                loss = plain(input_ids=tokens, labels=labels, use_cache=False).loss
                (loss / count).backward()
            total += float(loss)
    except Exception as problem:
        raise PlainFails(f"{type(problem).__name__}: {first_line(problem)}") from None
    adapter = gradients(plain)
    if not adapter or not all(bool(g.isfinite().all()) for g in adapter.values()) or total != total:
        raise PlainFails("losses or gradients are not finite")
    return total / len(sequences), adapter


def updated_losses(plain: Any, sequences: Sequences, recipe: Recipe, updates: int) -> list[float]:
    """The mean loss before each of `updates` updates by AdamW."""
    optimizer = torch.optim.AdamW([p for p in plain.parameters() if p.requires_grad], lr=recipe.learning_rate)
    losses = []
    for _ in range(updates):
        losses.append(step(plain, sequences, len(sequences))[0])
        optimizer.step()
    return losses


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in model.named_parameters()
        if p.requires_grad
    }


def randomize(model: Any) -> None:
    """Random adapter values: B starts at zero, where errors do not show.

    A product B A some times the base's own matrix; with 10 times it, deep models multiply rounding: the plain step of
    hrm_text in fp32 then differs by 1e-2 from itself in fp64 (now by 4e-7).
    """
    generator = torch.Generator().manual_seed(1)
    for name, p in sorted(model.named_parameters()):
        if p.requires_grad:
            scale = 0.3 if "lora_B" in name else 1.0
            p.data.copy_(torch.randn(p.shape, generator=generator) * scale / p.shape[-1] ** 0.5)


def copy_values(ours: Any, plain: Any) -> str:
    """Gives `plain` the values of `ours`; says what differs in their layout."""
    theirs, values = plain.state_dict(), ours.state_dict()
    if odd := sorted(set(theirs) ^ set(values)):
        kind = "other matrices are adapted" if any("lora_" in name for name in odd) else "other parameters"
        return f"{kind}: {', '.join(odd[:3])}"
    plain.load_state_dict(values)
    return ""
