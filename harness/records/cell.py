"""What is measured, and under which rule: models, recipes, goals, cells; frozen, with units in names.

The format of records.jsonl and accuracy.jsonl, newest first (one JSON line per row; unknown fields are ignored, missing
ones have the defaults of these classes):

- rows of cards carry `environment`, which is part of their keys, and `bandwidth`; older cells are measured again.
- tuning rule 2: accuracy rows carry `rule`. Rows without it may be older than the fix of int4 on a CPU; they are
  measured again. A recipe no longer says `optimizer`, which was always adamw. `gradient_checkpointing` is "none", "mlp"
  or "all"; false and true are read as "none" and "all".
- reference rule 2: the step of transformers and PEFT runs under autocast, with PEFT's preparation of a quantised base,
  as transformers' Trainer has it; rows of it from before are measured again.
- measuring rule 3: kernels are chosen on the device and stand in the row; activations may be recomputed.
- measuring rule 2: a new training step, with hand-written backward of head, LoRA, norms, MLPs and attention.
- measuring rule 1: the first step, of transformers and PEFT.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from harness import limits
from harness.files import user_path
from harness.records.stored import to_stored

# Increased when the way of measuring, or of tuning, changes: rows of an older rule stay in the file, and their cells or
# arms are measured again.
MEASURING_RULE = 3
TUNING_RULE = 2
_REFERENCE_RULE = 2  # of the reference step alone, in its cells' keys

OPTIMIZED, REFERENCE = "own", "reference"
LORA, DORA, FULL = "lora", "dora", "full"
NONE, MLP, ALL = "none", "mlp", "all"
RECOMPUTE = (NONE, MLP, ALL)  # of activations in the backward: none, gate and up of every MLP, or every layer
TARGETS = ("attention", "all-linear")
_NO_PART = ("aliases", "params_m", "ttft", "needs_range")  # of a model's fields, of what is measured
# Libraries whose version changes what is measured.
_KEY_VERSIONS = ("torch", "transformers", "peft", "bitsandbytes")
# Of a card's environment, too; of the driver its branch, for the libraries' kernels come with torch.
_KEY_ENVIRONMENT = ("cuda", "cudnn", "triton", "driver", "power_limit_w")


@dataclass(frozen=True)
class Recipe:
    """How one optimiser step is made: always of `sequences_per_step` sequences, whatever the micro-batch."""

    STORED: ClassVar = {"data_parallel": "processes"}

    lora_r: limits.Rank = 32
    lora_alpha: limits.Alpha = 64
    lora_dropout: limits.Dropout = 0.0
    lora_targets: str = "attention"  # one of TARGETS, or names of modules: "q_proj v_proj"
    sequences_per_step: limits.Sequences = 16
    micro_batch: limits.Sequences = 1
    learning_rate: limits.LearningRate = 5e-5
    gradient_checkpointing: str = NONE  # one of RECOMPUTE
    answer_share: limits.Share = 0.12
    # own: harness.train's step; reference: transformers and PEFT unchanged, with logits of every token
    implementation: str = OPTIMIZED
    trim_vocab: bool = False  # embeddings and head cut to the tokens of ARC prompts, which gives another model
    kernels: str = "auto"  # auto: the fastest on this device; or named, see harness.catalog.kernels
    data_parallel: limits.Cards = 1  # processes that share a step's sequences, one card each
    # Settings of others' training, so that their published numbers can be predicted as they were run.
    method: str = LORA  # or DORA, or FULL: every weight is trained, gradients and Adam states in the weights' dtype
    prepared_for_kbit: bool = False  # 16-bit parameters of a quantised base are widened to fp32
    autocast: bool = True  # the reference step multiplies under torch.autocast, as transformers' Trainer does
    adapter_dtype: str = "fp32"  # of A, B and their gradients: fp32, or 16 bits ("bf16", "fp16")
    optimizer: str = "adamw"  # one of harness.catalog.optimizers
    layer_split: limits.Cards = 1  # cards that hold a part of the layers each; one works at a time

    @staticmethod
    def from_older(raw: dict[str, Any]) -> dict[str, Any]:
        """`raw` as this version writes it. Older versions wrote booleans for checkpointing."""
        recompute = raw.get("gradient_checkpointing", NONE)
        words = {False: NONE, True: ALL}
        return raw | {"gradient_checkpointing": words[recompute] if isinstance(recompute, bool) else recompute}

    @property
    def micro_steps_per_step(self) -> int:
        """Micro-steps that each process makes per optimiser step."""
        return self.sequences_per_step // (self.micro_batch * self.data_parallel)

    @property
    def mark(self) -> str:
        """What tells this recipe from plain LoRA with our own step in a table: "/ref", "/dora/b4/ckpt"."""
        # Of several names of modules the first, and how many more: "/q_proj+2".
        first, *more = self.lora_targets.split()
        targets = {TARGETS[0]: "", TARGETS[1]: "/linear"}.get(first, f"/{first}{f'+{len(more)}' if more else ''}")
        # The reference has one way to run, so its other settings need no mark.
        if self.implementation == REFERENCE:
            return ("/ref" if self.method == LORA else f"/ref/{self.method}") + targets
        parts = ([self.method] if self.method != LORA else []) + (
            [f"b{self.micro_batch}"] if self.micro_batch > 1 else []
        )
        parts += [word.partition("=")[2] or word for word in self.kernels.split() if word != "auto"]
        if self.gradient_checkpointing != NONE:
            parts.append("ckpt-mlp" if self.gradient_checkpointing == MLP else "ckpt")
        return "".join(f"/{part}" for part in parts) + targets

    def answer_tokens(self, context: int) -> int:
        """How many of a sequence's `context` tokens are the answer; only these have logits and a loss."""
        return max(1, round(self.answer_share * context))


@dataclass(frozen=True)
class Goal:
    """What must fit in `budget_hours`: `steps` of training, and answering `test_tasks`."""

    budget_hours: float
    steps: int
    test_tasks: int


@dataclass(frozen=True)
class ModelSpec:
    """A candidate model. `architecture` is its config.json; `path` is set where the model was named by a local folder.

    `max_context` is the longest sequence, in tokens, that the model supports.
    """

    STORED: ClassVar = {"max_context": "window"}

    name: str
    architecture: dict[str, Any]
    max_context: limits.Count
    hub_id: str | None = None
    path: str | None = None
    params_m: limits.Millions | None = None
    aliases: tuple[str, ...] = ()
    ttft: dict[str, Any] | None = None  # models.yaml's settings for fine-tuning it; not part of what is measured
    quantized: str | None = None  # of a checkpoint that is: the precision that is the same, or its method's name
    needs_range: str | None = None  # "bf16": activations exceed fp16's largest number (harness.catalog.trainable)


@dataclass(frozen=True)
class Cell:
    """One model x precision x context x recipe, on one device: the unit of measuring and of resuming.

    `weights` is "random", or the folder or hub id to load from. `compute_dtype` is the dtype of the matrix products.
    `why` says how the cell came into the sweep; it is not part of what is measured.
    """

    model: ModelSpec
    precision: str
    compute_dtype: str
    context: limits.Count
    recipe: Recipe
    weights: str
    device: str
    device_name: str
    why: str = "asked"

    @property
    def label(self) -> str:
        """The precision and the recipe's mark, as in "int4/b4"."""
        return self.precision + self.recipe.mark

    def key(self, versions: dict[str, str], environment: Mapping[str, str] = MappingProxyType({})) -> str:
        """The key of this measurement; other libraries, weights or measuring rules give another key, and on a card
        another `environment` (a Measurement's)."""
        payload = to_stored(self)
        del payload["why"]
        if self.recipe.implementation == REFERENCE:
            payload["reference_rule"] = _REFERENCE_RULE
        return record_key(payload, MEASURING_RULE, versions, environment)


def record_key(
    payload: dict[str, Any],
    rule: int,
    versions: dict[str, str],
    environment: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """16 hexadecimal digits that name what `payload` (as stored, with a model, a recipe and a device) describes.

    What changes no measurement is left out: the device's number, and how the model is listed. A recipe's fields at
    their defaults are left out too, so that old keys stay valid when a later version adds a field.
    """
    payload = dict(payload)
    model = {name: value for name, value in payload["model"].items() if name not in _NO_PART}
    # Added later, so that keys of rows from before stay valid.
    if model.get("quantized") is None:
        model.pop("quantized", None)
    defaults = to_stored(Recipe())
    recipe = {name: value for name, value in payload["recipe"].items() if value != defaults[name]}
    if recipe.get("gradient_checkpointing") == ALL:
        # The first rows had a boolean here; their keys stay valid.
        recipe["gradient_checkpointing"] = True
    # Paths are stored with `~`; keys of rows from before that stay valid.
    for holder, name in ((model, "path"), (payload, "weights")):
        if str(holder.get(name, "")).startswith("~/"):
            holder[name] = str(user_path(holder[name]))
    named = {name: versions.get(name) for name in _KEY_VERSIONS}
    if named["torch"]:
        # The build for a CUDA version changes nothing on a CPU, and on a card it is in the environment.
        named["torch"] = named["torch"].partition("+cu")[0]
    named |= {name: environment[name] for name in _KEY_ENVIRONMENT if name in environment}
    if "driver" in named:
        named["driver"] = str(named["driver"]).partition(".")[0]
    whole = {**payload, "model": model, "recipe": recipe, "versions": named, "rule": rule}
    del whole["device"]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:16]
