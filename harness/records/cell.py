"""What the harness passes around and writes down: frozen, units in names, JSON in and out.

Raw seconds and bytes are stored; everything else is derived from them (see `harness.analysis`), so a
report can be made again later, on another machine, without torch.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

# Raised when the rule of measuring changes: rows of an older rule stay in the file, and their cells
# are measured again.
MEASURING_RULE = 3

OK = "ok"
OWN, REFERENCE = "own", "reference"
LORA, DORA, FULL = "lora", "dora", "full"
MLP = "mlp"
CHECKPOINTING = {"none": False, "mlp": MLP, "all": True}  # what a Recipe's gradient_checkpointing may be, by name
TARGETS = ("attention", "all-linear")
FAILURES = ("oom", "timeout", "crashed", "killed", "unsupported", "beyond_window", "too_slow", "skipped")


@dataclass(frozen=True)
class Recipe:
    """How one optimiser step is made. A step is `sequences_per_step` sequences, whatever the micro-batch."""

    lora_r: int = 32
    lora_alpha: int = 64
    lora_dropout: float = 0.0
    lora_targets: str = "attention"  # one of TARGETS
    sequences_per_step: int = 16
    micro_batch: int = 1
    learning_rate: float = 5e-5
    optimizer: str = "adamw"
    # True: every layer is computed again in the backward; MLP: gate and up of every MLP alone
    gradient_checkpointing: bool | str = False
    answer_share: float = 0.12
    # own: harness.train's; reference: what transformers and PEFT compute as they come, logits of every token included
    implementation: str = OWN
    trim_vocab: bool = False  # embeddings and head cut to the tokens of ARC prompts: another model
    kernels: str = "auto"  # of attention and pointwise parts: what is fastest here, or as harness.catalog.kernels says
    processes: int = 1  # that share a step's sequences, a card each
    # What others do, so that what they published can be predicted as it was run:
    method: str = LORA  # or DORA; FULL trains every weight, gradients and Adam's states in the weights' dtype
    prepared_for_kbit: bool = False  # of a quantised base what else is 16-bit is widened to fp32
    layer_split: int = 1  # cards that hold a part of the layers each, one at work at a time

    @property
    def micro_steps_per_step(self) -> int:
        """Of each process."""
        return self.sequences_per_step // (self.micro_batch * self.processes)

    @property
    def mark(self) -> str:
        """How a step other than the plain own one of LoRA is told apart in a table: "/ref", "/dora/b4/ckpt"."""
        if self.implementation == REFERENCE:
            return "/ref" if self.method == LORA else f"/ref/{self.method}"
        parts = ([self.method] if self.method != LORA else []) + (
            [f"b{self.micro_batch}"] if self.micro_batch > 1 else []
        )
        parts += [word.partition("=")[2] or word for word in self.kernels.split() if word != "auto"]
        if self.gradient_checkpointing:
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
    """A candidate. `architecture` is what its config.json says; `path` is a local folder, if that is what was named."""

    name: str
    architecture: dict[str, Any]
    window: int
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
        said = asdict(self)
        for not_measured in ("why", "device"):
            del said[not_measured]
        for not_measured in ("aliases", "params_m", "ttft"):
            del said["model"][not_measured]
        # What a later version lets a recipe say besides is at its default here, and changes no key.
        said["recipe"] = {name: value for name, value in said["recipe"].items() if value != getattr(Recipe(), name)}
        said["versions"] = {name: versions.get(name) for name in ("torch", "transformers", "peft", "bitsandbytes")}
        said["rule"] = MEASURING_RULE
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Work:
    """Floating-point operations of the matrix products of one sequence of n tokens: linear * n + quadratic * n**2.

    Counted on the real forward and backward (harness.predict.flops), never assumed. The quadratic part is attention,
    counted in full although a causal kernel may skip the upper half, as torch's FlopCounterMode does.
    """

    forward_linear: float
    forward_quadratic: float
    backward_linear: float
    backward_quadratic: float

    def forward(self, tokens: float) -> float:
        return self.forward_linear * tokens + self.forward_quadratic * tokens**2

    def backward(self, tokens: float) -> float:
        return self.backward_linear * tokens + self.backward_quadratic * tokens**2

    def total(self, tokens: float) -> float:
        return self.forward(tokens) + self.backward(tokens)


@dataclass(frozen=True)
class Rate:
    """What the probe of one dtype gave, in FLOP/s, for products in the shapes of forward and of backward."""

    forward: float
    backward: float
    native: bool

    @property
    def combined(self) -> float:
        """FLOP/s of a step that does as much forward as backward, as LoRA on a frozen base does."""
        return 2 / (1 / self.forward + 1 / self.backward)


@dataclass(frozen=True)
class Measurement:
    """One row of the record: a cell, how it ended, and what was seen. A failure is a row too, with its reason."""

    key: str
    cell: Cell
    status: str
    reason: str = ""
    started: str = ""  # ISO 8601, UTC
    versions: dict[str, str] = field(default_factory=dict)
    commit: str | None = None
    rule: int = MEASURING_RULE
    seed: int = 0
    params: int | None = None
    trainable_params: int | None = None
    work: Work | None = None
    rate: Rate | None = None  # of the compute dtype, at the time
    predicted_micro_s: float | None = None  # before it was measured, and
    predicted_peak_bytes: int | None = None
    estimate_s: float | None = None  # of the smallest run: load, one warm-up and three micro-steps
    device_total_bytes: int | None = None
    load_s: float | None = None
    warmup_micro_s: tuple[float, ...] = ()
    warmup_optimizer_s: tuple[float, ...] = ()
    micro_s: tuple[float, ...] = ()
    optimizer_s: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()
    kernels: str = ""  # that ran: "attention=blocks pointwise=compiled"
    # phase (imported, after_load, first_step, steady) -> kind (allocated, reserved, process, resident: peaks; current)
    memory: dict[str, dict[str, int]] = field(default_factory=dict)
    wall_s: float | None = None

    @property
    def ok(self) -> bool:
        return self.status == OK

    @property
    def peak_bytes(self) -> int | None:
        """The most that the whole process held on the device: on a CPU its resident memory."""
        kinds = ("process", "reserved", "resident")
        seen = [phase[kind] for phase in self.memory.values() for kind in kinds if kind in phase]
        return max(seen, default=None)

    @property
    def margin_bytes(self) -> int | None:
        if self.peak_bytes is None or self.device_total_bytes is None:
            return None
        return self.device_total_bytes - self.peak_bytes


def to_json(row: Measurement) -> dict[str, Any]:
    return {"kind": "measurement", **asdict(row)}


def cell_from_json(said: dict[str, Any]) -> Cell:
    model = {**said["model"], "aliases": tuple(said["model"].get("aliases", ()))}
    return Cell(**{**said, "model": ModelSpec(**model), "recipe": Recipe(**said["recipe"])})


def from_json(said: dict[str, Any]) -> Measurement:
    """The `Measurement` that `to_json` wrote. Fields that this version does not know are left out.

    Raises KeyError, TypeError or ValueError where `said` is no measurement.
    """
    known = {f.name for f in fields(Measurement)}
    values = {name: value for name, value in said.items() if name in known}
    values["cell"] = cell_from_json(said["cell"])
    values["work"] = Work(**said["work"]) if said.get("work") else None
    values["rate"] = Rate(**said["rate"]) if said.get("rate") else None
    for name in ("warmup_micro_s", "warmup_optimizer_s", "micro_s", "optimizer_s", "losses"):
        values[name] = tuple(float(value) for value in said.get(name, ()))
    if values["status"] != OK and values["status"] not in FAILURES:
        raise ValueError(f"unknown status {values['status']!r}")
    return Measurement(**values)
