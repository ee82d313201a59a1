"""What is measured and under which rule: models, recipes, goals, cells; frozen, units in names.

The format of records.jsonl and accuracy.jsonl, newest first (one JSON line a row; unknown fields are ignored, missing
ones have the defaults of these classes):

- tuning rule 2: accuracy rows carry `rule`. Rows without it may be from before int4 on a CPU was mended; they are
  measured again. A recipe no longer says `optimizer`, which was always adamw. `gradient_checkpointing` is "none", "mlp"
  or "all"; false and true are read as "none" and "all".
- measuring rule 3: kernels are chosen on the device and stand in the row; activations may be recomputed.
- measuring rule 2: another step: head, LoRA, norms, MLPs and attention with their backward written out.
- measuring rule 1: the first step, of transformers and PEFT.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, ClassVar

from harness.records.stored import to_stored

# Raised when the rule of measuring, or of tuning, changes: rows of an older rule stay in the file, and what they are of
# is measured again.
MEASURING_RULE = 3
TUNING_RULE = 2

OPTIMIZED, REFERENCE = "own", "reference"
LORA, DORA, FULL = "lora", "dora", "full"
NONE, MLP, ALL = "none", "mlp", "all"
RECOMPUTE = (NONE, MLP, ALL)  # of activations in the backward: none, gate and up of every MLP, or every layer
TARGETS = ("attention", "all-linear")
# Of the libraries that what is measured depends on.
_KEY_VERSIONS = ("torch", "transformers", "peft", "bitsandbytes")


@dataclass(frozen=True)
class Recipe:
    """How one optimiser step is made. A step is `sequences_per_step` sequences, whatever the micro-batch."""

    STORED: ClassVar = {"data_parallel": "processes"}

    lora_r: int = 32
    lora_alpha: int = 64
    lora_dropout: float = 0.0
    lora_targets: str = "attention"  # one of TARGETS
    sequences_per_step: int = 16
    micro_batch: int = 1
    learning_rate: float = 5e-5
    gradient_checkpointing: str = NONE  # one of RECOMPUTE
    answer_share: float = 0.12
    # own: harness.train's; reference: what transformers and PEFT compute as they come, logits of every token included
    implementation: str = OPTIMIZED
    trim_vocab: bool = False  # embeddings and head cut to the tokens of ARC prompts: another model
    kernels: str = "auto"  # of attention and pointwise parts: what is fastest here, or as harness.catalog.kernels says
    data_parallel: int = 1  # processes that share a step's sequences, a card each
    # What others do, so that what they published can be predicted as it was run:
    method: str = LORA  # or DORA; FULL trains every weight, gradients and Adam's states in the weights' dtype
    prepared_for_kbit: bool = False  # of a quantised base what else is 16-bit is widened to fp32
    layer_split: int = 1  # cards that hold a part of the layers each, one at work at a time

    @staticmethod
    def from_older(raw: dict[str, Any]) -> dict[str, Any]:
        """`raw` as this version writes it: checkpointing was said by booleans once."""
        words = {False: NONE, True: ALL}
        recompute = raw.get("gradient_checkpointing", NONE)
        return raw | {"gradient_checkpointing": words[recompute] if isinstance(recompute, bool) else recompute}

    @property
    def micro_steps_per_step(self) -> int:
        """Of each process."""
        return self.sequences_per_step // (self.micro_batch * self.data_parallel)

    @property
    def mark(self) -> str:
        """How a step other than the plain own one of LoRA is told apart in a table: "/ref", "/dora/b4/ckpt"."""
        if self.implementation == REFERENCE:
            return "/ref" if self.method == LORA else f"/ref/{self.method}"
        parts = ([self.method] if self.method != LORA else []) + (
            [f"b{self.micro_batch}"] if self.micro_batch > 1 else []
        )
        parts += [word.partition("=")[2] or word for word in self.kernels.split() if word != "auto"]
        if self.gradient_checkpointing != NONE:
            parts.append("ckpt-mlp" if self.gradient_checkpointing == MLP else "ckpt")
        return "".join(f"/{part}" for part in parts)

    def answer_tokens(self, context: int) -> int:
        """How many of a sequence's `context` tokens are answer: those with a loss, and with logits."""
        return max(1, round(self.answer_share * context))


@dataclass(frozen=True)
class Goal:
    """What must fit: `steps` of training and the answers of `test_tasks`, in `budget_hours`."""

    budget_hours: float
    steps: int
    test_tasks: int


@dataclass(frozen=True)
class ModelSpec:
    """A candidate. `architecture` is what its config.json says; `path` is a local folder, if that is what was named.

    `max_context` is the most tokens that it was made for.
    """

    STORED: ClassVar = {"max_context": "window"}

    name: str
    architecture: dict[str, Any]
    max_context: int
    hub_id: str | None = None
    path: str | None = None
    params_m: float | None = None
    aliases: tuple[str, ...] = ()
    ttft: dict[str, Any] | None = None  # what models.yaml says of fine-tuning this one; no part of what is measured


@dataclass(frozen=True)
class Cell:
    """One model x precision x context x recipe, on one device: the unit of measuring and of resuming.

    `weights` is "random" or the folder or hub id that they are loaded from. `compute_dtype` is the dtype of the matrix
    products. `why` says how the cell came into the sweep; it is no part of what is measured.
    """

    model: ModelSpec
    precision: str
    compute_dtype: str
    context: int
    recipe: Recipe
    weights: str
    device: str
    device_name: str
    why: str = "asked"

    @property
    def label(self) -> str:
        """The precision, and what tells the step from the usual one."""
        return self.precision + self.recipe.mark

    def key(self, versions: dict[str, str]) -> str:
        """Names this measurement. Other libraries, weights or rules of measuring give another one."""
        payload = to_stored(self)
        del payload["why"]
        return record_key(payload, MEASURING_RULE, versions)


def record_key(payload: dict[str, Any], rule: int, versions: dict[str, str]) -> str:
    """16 hexadecimal digits that name what `payload` (as stored, with a model, a recipe and a device) describes.

    What changes no measurement is left out: the device's number, and how the model is listed. A recipe's fields at
    their defaults are left out too, so that old keys stay valid when a later version adds a field.
    """
    model = {name: value for name, value in payload["model"].items() if name not in ("aliases", "params_m", "ttft")}
    defaults = to_stored(Recipe())
    recipe = {name: value for name, value in payload["recipe"].items() if value != defaults[name]}
    if recipe.get("gradient_checkpointing") == ALL:
        recipe["gradient_checkpointing"] = True  # as the first rows had it
    named = {name: versions.get(name) for name in _KEY_VERSIONS}
    whole = {**payload, "model": model, "recipe": recipe, "versions": named, "rule": rule}
    del whole["device"]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:16]
