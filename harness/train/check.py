"""Which parts of our step a model may use: those by which a small copy of it learns exactly as by the plain step.

Modules are compared one by one when they are replaced (harness.train.patch). That the whole is right depends on what
lies between them: masks, windows, states that run through a sequence, a loss of the router's. So a copy of a few narrow
layers (harness.train.small_copy) is trained by our step and by the plain one of transformers and PEFT, on tokens beyond
every window, alone and packed. What differs is left to transformers. The answer is kept in the user's cache.
"""

import copy
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import Annotated, Any

import torch
import transformers
from msgspec import Meta

from harness.catalog.kernels import PLAIN as PLAIN_KERNEL
from harness.errors import Unsupported, first_line
from harness.files import read_cache, write_cache
from harness.hardware.environment import versions
from harness.records.cell import Recipe
from harness.records.stored import from_stored, to_stored
from harness.train.adapter import add_adapter
from harness.train.batches import Batch, pack
from harness.train.compat import quiet
from harness.train.losses import answer_loss, mark, packed_losses, reference_loss
from harness.train.ops import attention
from harness.train.patch import LOSS, patch_model
from harness.train.small_copy import WINDOW, bare, small_copies

ATTENTION = "attention"
# By what they save: where some do not go together, the last ones are left out first.
PARTS = ("head", ATTENTION, "lora", "gated", "norm", "rotary", "last")
RULE = 5  # of the check: raised when it checks more, so that kept answers are not used
_LOSS, _GRADIENT = 1e-4, 1e-3  # largest differences: absolute in nats, relative to the largest gradient
_NEIGHBOUR = 1e-5  # nats: rounding alone
_LENGTHS = ((4 * WINDOW + 7, 9), (3 * WINDOW - 5, 4))  # (tokens, answer tokens)


Learned = tuple[torch.Tensor, list[torch.Tensor]]  # loss, and the gradient of each trained matrix


@dataclass(frozen=True)
class Supported:
    """`parts` are those of `PARTS` that may be ours; `packs` whether sequences may be packed.

    Without `loss` even the loss is transformers' own. `reason` says in words what is left to transformers.
    """

    parts: tuple[Annotated[str, Meta(pattern=f"^({'|'.join(PARTS)})$")], ...]
    packs: bool
    loss: bool = True
    reason: str = ""
    unpatched: tuple[str, ...] = ()  # classes of modules that a comparison left as they are


PLAIN = Supported((), False, False, "the whole step")
UNCHECKED = replace(PLAIN, reason="the whole step (no small copy of the model can be built to compare ours on)")


def supported(config: transformers.PretrainedConfig, recipe: Recipe) -> Supported:
    """What of our step `config`'s models may use under `recipe`, from the cache or checked now (seconds).

    Raises Unsupported for what is no causal language model.
    """
    question = {"config": bare(config), "targets": recipe.lora_targets, "method": recipe.method, "rule": RULE}
    text = json.dumps([question, versions()], sort_keys=True, default=str)
    name = f"checks/{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    if (kept := read_cache(name, partial(from_stored, kind=Supported))) is not None:
        return kept
    answer = check(config, recipe)
    write_cache(name, to_stored(answer))
    return answer


def check(config: transformers.PretrainedConfig, recipe: Recipe) -> Supported:
    """The check itself. Raises Unsupported for what is no causal language model."""
    for base in small_copies(config):
        try:
            comparison = _Comparison(base, recipe)
        except Exception:  # a size that this architecture does not take; the next copy may be wider
            continue
        must_be_causal(comparison.plain())
        return _parts(comparison)
    return UNCHECKED


def must_be_causal(model: Any) -> None:
    """Raises Unsupported where a later token changes what `model` says of earlier ones."""
    weight = model.get_input_embeddings().weight
    ids = torch.arange(5, 5 + 2 * WINDOW, device=weight.device)[None] % weight.shape[0]
    changed = ids.clone()
    changed[0, -1] = (ids[0, -1] + 1) % weight.shape[0]  # another token in every vocabulary
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            before, after = (model(input_ids=each, use_cache=False).logits[:, :-1].float() for each in (ids, changed))
    except (ValueError, TypeError, AttributeError) as problem:
        raise Unsupported(f"it does not run on a text's tokens alone: {first_line(problem)}") from None
    model.train(was_training)
    if (before - after).abs().max() > 1e-3 * before.abs().max():
        raise Unsupported("a later token changes its prediction of earlier ones: it is no causal language model")


def _parts(comparison: "_Comparison") -> Supported:
    """As many parts as pass the comparison together."""
    if not comparison.passes(()):
        return PLAIN
    # Each part alone, then all that passed together, then fewer of them.
    good = [part for part in PARTS if comparison.passes((part,))]
    parts = next(parts for parts in _subsets(good) if comparison.passes(parts))
    packed = next(
        (fewer for fewer in (parts, tuple(p for p in parts if p != ATTENTION)) if comparison.packs(fewer)), None
    )
    parts, packs = (parts, False) if packed is None else (packed, True)
    left = [part for part in PARTS if part not in parts] + ([] if packs else ["packing"])
    # Without storage no module can be compared: those that the comparison leaves are left there too.
    unpatched = apply(comparison.adapted(), Supported(parts, packs))
    classes = tuple(dict.fromkeys(name.partition(" of ")[0] for name in unpatched if " of " in name))
    return Supported(parts, packs, True, ", ".join(left), classes)


def _subsets(parts: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """All of them, then all but one, and so on to none."""
    for count in range(len(parts), -1, -1):
        yield from combinations(parts, count)


class _Comparison:
    """A small model trained by our step with some of its parts, against the plain step on the same tokens."""

    def __init__(self, base: Any, recipe: Recipe):
        self.base, self.recipe = base, replace(recipe, lora_r=4, lora_alpha=4, lora_dropout=0.0)
        generator = torch.Generator().manual_seed(0)
        vocab_size = base.config.get_text_config(decoder=True).vocab_size  # embeddings may have more rows
        self.sequences = [(torch.randint(3, vocab_size, (n,), generator=generator).tolist(), m) for n, m in _LENGTHS]
        self.expected = [self._learned(self.plain(), reference_loss, sequence) for sequence in self.sequences]

    def passes(self, parts: Sequence[str]) -> bool:
        """Whether losses and gradients of the sequences, alone, are those of the plain step."""
        try:
            model = self._ours(parts)
            learned = [self._learned(model, answer_loss, sequence) for sequence in self.sequences]
        except Exception:  # a model may be asked in a way that it does not know
            return False
        return all(_same(ours, plain) for ours, plain in zip(learned, self.expected, strict=True))

    def packs(self, parts: Sequence[str]) -> bool:
        """Whether the sequences in one pack have the losses, and together the gradients, of each alone."""
        try:
            model = self._ours(parts)
            losses = packed_losses(model, pack(self.sequences, torch.device("cpu")))
            losses.sum().backward()
            if not self._neighbour_changes_nothing(model):
                return False
        except Exception:
            return False
        alone = torch.stack([loss for loss, _ in self.expected])
        together = [sum(gradients) for gradients in zip(*(gradients for _, gradients in self.expected), strict=True)]
        return _same((losses.detach(), _gradients(model)), (alone, together), 0.1)

    def _neighbour_changes_nothing(self, model: Any) -> bool:
        """Whether other tokens before a short sequence leave its loss: a state that runs on shows at its start."""
        (ids, answer_tokens), short = self.sequences[0], (self.sequences[1][0][:4], 3)
        with torch.no_grad():
            first, second = (
                packed_losses(model, pack([(before, answer_tokens), short], torch.device("cpu")))[1]
                for before in (ids, ids[::-1])
            )
        return bool((first - second).abs() <= _NEIGHBOUR)

    def plain(self) -> Any:
        model = self.adapted()
        use_plain_attention(model)
        return model

    def _ours(self, parts: Sequence[str]) -> Any:
        model = self.adapted()
        if LOSS in apply(model, Supported(tuple(parts), True)):
            raise ValueError("the model's logits are not its head's product with its body's output")
        return model

    def adapted(self) -> Any:
        """The small model with its adapter, whose values are random: B starts at zero, where errors do not show.

        B A is a few times the base's own matrix; with much more, deep models multiply rounding until it looks like an
        error.
        """
        base = copy.deepcopy(self.base)
        base.requires_grad_(False)
        model = add_adapter(base, self.recipe).eval()  # dropouts in the base would differ from run to run
        generator = torch.Generator().manual_seed(1)
        for name, p in model.named_parameters():
            if p.requires_grad:
                scale = 0.3 if "lora_B" in name else 1.0
                p.data.copy_(torch.randn(p.shape, generator=generator) * scale / p.shape[-1] ** 0.5)
        return model

    def _learned(self, model: Any, loss_of: Callable, sequence: tuple[Sequence[int], int]) -> Learned:
        ids, answer_tokens = sequence
        model.zero_grad(set_to_none=True)
        loss = loss_of(model, Batch(torch.tensor([ids]), answer_tokens))
        loss.backward()
        return loss.detach(), _gradients(model)


def _gradients(model: torch.nn.Module) -> list[torch.Tensor]:
    trained = (p for p in model.parameters() if p.requires_grad)
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in trained]


def _same(ours: Learned, plain: Learned, share: float = 1.0) -> bool:
    """Whether both learned the same, up to `share` of the largest differences allowed."""
    if not (ours[0] - plain[0]).abs().max() <= share * _LOSS:
        return False
    largest = max(g.abs().max() for g in plain[1])
    return all((a - b).abs().max() <= share * _GRADIENT * largest for a, b in zip(ours[1], plain[1], strict=True))


def apply(model: Any, support: Supported, kernel: str = PLAIN_KERNEL, compare: bool = True) -> list[str]:
    """Puts what `support` allows of our step into `model`, one of PEFT's; the rest is transformers' own.

    Returns the names of modules that stayed as they were. `kernel` and `compare` are those of `patch_model`.
    """
    if ATTENTION in support.parts:
        model.get_base_model().set_attn_implementation(attention.NAME)
    else:
        use_plain_attention(model)
    mark(model, plain_loss=not support.loss, packs=support.packs)
    return patch_model(model, support.parts, compare, kernel, support.unpatched)


def use_plain_attention(model: Any) -> None:
    """transformers' own attention: torch's kernels where they compute what the model means, else its own formula."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    # Kernels know no cap of the scores and no sinks. Not every version of transformers refuses them for such a model.
    capped = getattr(base.config.get_text_config(), "attn_logit_softcapping", None)
    sinks = any(isinstance(getattr(module, "sinks", None), torch.Tensor) for module in base.modules())
    refused = not getattr(base, "_supports_sdpa", True)
    for name in ("eager",) if capped or sinks or refused else ("sdpa", "eager"):
        try:
            with quiet():
                base.set_attn_implementation(name)
            return
        except ValueError:
            continue
