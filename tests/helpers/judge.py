"""Whether the harness trains a model right: its own path against a plain loop of transformers and PEFT.

Nothing of harness.train.check is used to judge. Both sides have the same base weights and adapter values; the plain
side is built by transformers alone, on the CPU in fp32, and runs every sequence by itself.
"""

import gc
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM

from harness.catalog.precisions import find
from harness.errors import Unsupported, first_line
from harness.predict import tracer
from harness.predict.trace_pool import TraceKey
from harness.records.cell import ModelSpec, Recipe
from harness.records.stored import to_stored
from harness.train import model as models
from harness.train.batches import Batch
from harness.train.compat import import_peft, quiet
from harness.train.step import TrainingStep

RIGHT, REFUSED, NOT_CAUSAL, PLAIN_FAILS, WRONG, CRASH = (
    "right",
    "refused",
    "not causal",
    "plain fails",
    "WRONG",
    "crash",
)
LENGTHS = ((61, 7), (37, 12), (50, 1))  # (tokens, answer tokens): longer than every window and chunk of the zoo
_LOSS, _GRADIENT = 1e-4, 1e-3
_FORBIDDEN = ("out_proj", "conv1d")  # PEFT adapts no layer of these names in Mamba's families
_MAMBA = ("falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h")
_NO_TEXT = ("vision", "image", "audio", "speech")
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Verdict:
    """`detail` says what is refused, wrong or failing; `plain` what is left to transformers of one that is right."""

    verdict: str
    detail: str = ""
    plain: str = ""
    packs: bool = False
    traced: str = ""  # empty if the step can be traced, else why not


class _Plain(Exception):
    """Plain transformers and PEFT cannot train the model."""


def judge(config: transformers.PretrainedConfig) -> Verdict:
    """The verdict on `config`, whose values go the way of a config.json."""
    spec = spec_of(config)
    recipe = Recipe(lora_r=4, lora_alpha=8, lora_targets="all-linear", sequences_per_step=len(LENGTHS))
    generator = torch.Generator().manual_seed(5)
    vocab = config.get_text_config(decoder=True).vocab_size
    sequences = [(torch.randint(3, vocab, (n,), generator=generator).tolist(), m) for n, m in LENGTHS]
    plain, causal, failure = None, True, ""
    for every in (True, False):
        torch.manual_seed(0)
        try:
            plain = _plain_model(config, recipe, every)
            _plain_step(plain, sequences)
            causal = _is_causal(plain, sequences[0][0])  # before the adapter has values, which multiply rounding
            _randomize(plain)
            _plain_step(plain, sequences)
            break
        except _Plain as problem:
            plain, failure = None, failure or str(problem)
    # Ours: refused, or a model of the same layout.
    try:
        loaded = models.load(spec, find("fp32"), "fp32", recipe, "random", CPU)
    except Unsupported as problem:
        if plain is None:
            return Verdict(PLAIN_FAILS, failure, f"refused: {problem}")
        return Verdict(NOT_CAUSAL if not causal else REFUSED, str(problem))
    except Exception as problem:
        name = f"load: {type(problem).__name__}: {first_line(problem)}"
        return Verdict(CRASH, name if plain else f"{name} (plain: {failure})")
    if plain is None:
        return Verdict(PLAIN_FAILS, failure, "ours loads")
    if not causal:
        return Verdict(WRONG, "not causal, and not refused")
    ours = loaded.model
    _randomize(ours)
    if problem := _copy(ours, plain):
        return Verdict(WRONG, problem)
    try:
        expected = [_plain_step(plain, [sequence]) for sequence in sequences]
        whole = _plain_step(plain, sequences)
    except _Plain as problem:
        return Verdict(WRONG, f"with the values of ours: {problem}")
    # Loss and gradients of every sequence, of the step with one sequence per pack, and packed.
    step = TrainingStep(ours, recipe, "fp32", CPU)
    step.update = lambda: None  # type: ignore[method-assign]  # the gradients stay
    packs = getattr(ours, "packs_sequences", True)
    try:
        for sequence, answer in zip(sequences, expected, strict=True):
            if problem := _differs(_micro(step, sequence, len(sequences)), answer):
                return Verdict(WRONG, f"alone, {problem}")
        for tokens_at_once, name in ((1, "one per pack"), (128, "packed")):
            if problem := _differs(_run(step, sequences, tokens_at_once), whole):
                return Verdict(WRONG, f"{name}, {problem}")
    except Exception as problem:
        return Verdict(CRASH, f"step: {type(problem).__name__}: {first_line(problem)}")
    left = loaded.kernels.partition("transformers=")[2]
    return Verdict(RIGHT, "", left, packs, _traced(spec, recipe))


def spec_of(config: transformers.PretrainedConfig) -> ModelSpec:
    raw = json.loads(config.to_json_string())
    return ModelSpec(raw["model_type"], raw, 512)


def _plain_model(config: transformers.PretrainedConfig, recipe: Recipe, every: bool) -> Any:
    """PEFT's model with LoRA on all linear layers; without `every`, on those alone that PEFT can adapt.

    It forbids some names in Mamba's families, and takes layers for linear that derive from torch's and compute
    something else (routers, grouped projections). Layers of images and sound have none: text does not reach them.
    """
    peft = import_peft()
    try:
        with quiet():
            base = AutoModelForCausalLM.from_config(_text_part(config), dtype=torch.float32)
            base.requires_grad_(False)
            targets: Any = "all-linear"
            head = base.get_output_embeddings()
            plain_types = (torch.nn.Linear, transformers.pytorch_utils.Conv1D)
            linear = [name for name, m in base.named_modules() if type(m) in plain_types and m is not head]
            if blind := [name for name in linear if any(part in name for part in _NO_TEXT)]:
                targets = linear = [name for name in linear if name not in blind]
            if not every:
                forbidden = _FORBIDDEN if config.model_type in _MAMBA else ()
                targets = [name for name in linear if name.rpartition(".")[2] not in forbidden]
            lora = peft.LoraConfig(
                r=recipe.lora_r, lora_alpha=recipe.lora_alpha, target_modules=targets, task_type="CAUSAL_LM"
            )
            return peft.get_peft_model(base, lora).train()
    except Exception as problem:
        raise _Plain(f"{type(problem).__name__}: {first_line(problem)}") from None


def _text_part(config: transformers.PretrainedConfig) -> transformers.PretrainedConfig:
    """The causal language model inside a multimodal one, where AutoModelForCausalLM would build the whole."""
    text, built = getattr(config, "text_config", None), AutoModelForCausalLM._model_mapping
    if type(text) not in built or (type(config) in built and built[type(config)].__name__.endswith("ForCausalLM")):
        return config
    text.tie_word_embeddings = config.tie_word_embeddings
    return text


def _is_causal(plain: Any, ids: Sequence[int]) -> bool:
    """Whether a change of the last token leaves the logits of the earlier ones as they were."""
    first, second = torch.tensor([ids]), torch.tensor([[*ids[:-1], 3 if ids[-1] != 3 else 4]])
    plain.eval()
    try:
        with torch.no_grad(), quiet():
            before, after = (plain(input_ids=tokens, use_cache=False).logits[:, :-1] for tokens in (first, second))
    except Exception as problem:
        raise _Plain(f"{type(problem).__name__}: {first_line(problem)}") from None
    finally:
        plain.train()
    return bool((before - after).abs().max() <= 1e-4 * max(1.0, float(before.abs().max())))


def _plain_step(plain: Any, sequences: Sequence[tuple[Sequence[int], int]]) -> tuple[float, dict[str, torch.Tensor]]:
    """Mean loss, and gradients of the mean over all of a step's sequences, by transformers' own loss."""
    plain.zero_grad(set_to_none=True)
    total = 0.0
    try:
        for ids, answer_tokens in sequences:
            tokens = torch.tensor([ids])
            labels = tokens.clone()
            labels[:, :-answer_tokens] = -100
            with quiet():
                loss = plain(input_ids=tokens, labels=labels, use_cache=False).loss
                (loss / len(LENGTHS)).backward()
            total += float(loss)
    except Exception as problem:
        raise _Plain(f"{type(problem).__name__}: {first_line(problem)}") from None
    gradients = _gradients(plain)
    if not gradients or not all(bool(g.isfinite().all()) for g in gradients.values()) or total != total:
        raise _Plain("losses or gradients are not finite")
    return total / len(sequences), gradients


def _micro(step: TrainingStep, sequence: tuple[Sequence[int], int], count: int) -> tuple[float, dict]:
    step.model.zero_grad(set_to_none=True)
    ids, answer_tokens = sequence
    with quiet():
        loss = float(step.micro_step(Batch(torch.tensor([ids]), answer_tokens)))
    return loss, _gradients(step.model)


def _run(step: TrainingStep, sequences: Sequence[tuple[Sequence[int], int]], tokens_at_once: int) -> tuple[float, dict]:
    step.model.zero_grad(set_to_none=True)
    with quiet():
        loss = float(step.run(sequences, tokens_at_once))
    return loss, _gradients(step.model)


def _gradients(model: Any) -> dict[str, torch.Tensor]:
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in model.named_parameters()
        if p.requires_grad
    }


def _differs(ours: tuple[float, dict], plain: tuple[float, dict]) -> str:
    """What differs by more than the tolerances, in words; empty if nothing does."""
    if not abs(ours[0] - plain[0]) <= _LOSS:
        return f"the loss is {ours[0]:.5f}, not {plain[0]:.5f}"
    largest = max(float(g.abs().max()) for g in plain[1].values())
    name, worst = max(
        ((name, float((g - ours[1][name]).abs().max())) for name, g in plain[1].items()), key=lambda pair: pair[1]
    )
    if not worst <= _GRADIENT * largest:
        return f"the gradient of {name} is off by {worst / largest:.1e} of the largest"
    return ""


def _randomize(model: Any) -> None:
    """Random adapter values: B starts at zero, where errors do not show."""
    generator = torch.Generator().manual_seed(1)
    for _, p in sorted(model.named_parameters()):
        if p.requires_grad:
            p.data.copy_(torch.randn(p.shape, generator=generator) / p.shape[-1] ** 0.5)


def _copy(ours: Any, plain: Any) -> str:
    """Gives `plain` the values of `ours`; says what differs in their layout."""
    theirs, values = plain.state_dict(), ours.state_dict()
    if odd := sorted(set(theirs) ^ set(values)):
        kind = "other matrices are adapted" if any("lora_" in name for name in odd) else "other parameters"
        return f"{kind}: {', '.join(odd[:3])}"
    plain.load_state_dict(values)
    return ""


def _traced(spec: ModelSpec, recipe: Recipe) -> str:
    key = TraceKey(spec, find("fp32"), "fp32", recipe, 64, "cpu")
    try:
        answer = tracer.trace_job(to_stored(key), lambda *_: None)
    except Exception as problem:
        return f"crash: {type(problem).__name__}: {first_line(problem)}"
    gc.collect()
    return answer.get("unsupported", "")
