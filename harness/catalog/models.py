"""The candidates: models.yaml, a folder with a config.json, a GGUF file, or a hub id."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from harness import limits
from harness.catalog import model_folder
from harness.catalog.precisions import REQUESTS
from harness.catalog.strict_yaml import Document, Strict, parse_file
from harness.catalog.weights import is_gguf
from harness.errors import UserError, unknown
from harness.files import user_path
from harness.records.arm import SCOPES, SHARED
from harness.records.cell import OPTIMIZED, RECOMPUTE, REFERENCE, TARGETS, ModelSpec, Recipe
from harness.text import quoted

TRIMMED = "-trim"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LONGEST_HUB_ID = 96  # letters, by the hub's rule
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


_ContextList = Annotated[tuple[limits.Context, ...], limits.Names]


class Contexts(Strict, frozen=True):
    """Tokens, by kind of device."""

    cuda: _ContextList
    cpu: _ContextList

    def __getitem__(self, kind: str) -> tuple[int, ...]:
        return getattr(self, kind)


class Seconds(Strict, frozen=True):
    """Seconds, by kind of device."""

    cuda: limits.Seconds
    cpu: limits.Seconds

    def __getitem__(self, kind: str) -> float:
        return getattr(self, kind)


class Defaults(Strict, frozen=True):
    """A sweep's settings where the command line gives none."""

    model: str
    # mypy reads no constants in a Literal
    precisions: Annotated[tuple[Literal[tuple(REQUESTS)], ...], limits.Names]  # type: ignore[valid-type]
    contexts: Contexts
    budget_hours: limits.Hours
    steps: limits.Steps
    test_tasks: limits.NoTasks
    sample_seconds: Seconds
    cap_seconds: Seconds


class TuneDefaults(Strict, frozen=True):
    """A fine-tune's settings where the command line gives none; a model of models.yaml may have its own.

    `grid_limit` is the most cells per side of the grids that a task shows; None is the recipe's.
    """

    set: str
    grid_limit: limits.Side
    tasks: limits.Tasks
    steps: limits.Steps
    context: limits.Prompt
    views: limits.Views
    scope: Literal[SCOPES] = SHARED  # type: ignore[valid-type]  # mypy reads no constants here
    learning_rate: limits.LearningRate | None = None
    sequences_per_step: limits.Sequences | None = None
    lora_targets: Literal[TARGETS] | None = None  # type: ignore[valid-type]

    def override(self, **given: Any) -> "TuneDefaults":
        """These settings with the values that are given; None changes nothing."""
        return msgspec.structs.replace(self, **{name: value for name, value in given.items() if value is not None})

    def of(self, spec: ModelSpec) -> "TuneDefaults":
        return self.override(**(spec.ttft or {}))

    @property
    def training(self) -> dict[str, Any]:
        """Of how a model is trained; the others say what it is trained and tried on."""
        names = ("scope", "steps", "learning_rate", "sequences_per_step", "lora_targets")
        return {name: getattr(self, name) for name in names}

    @property
    def of_recipe(self) -> dict[str, Any]:
        """The training settings that a recipe has, None where it keeps its own."""
        return {name: getattr(self, name) for name in ("learning_rate", "sequences_per_step", "lora_targets")}


class _RecipeBlock(Strict, frozen=True):
    """The fields of Recipe that models.yaml gives; the others are the command line's alone."""

    lora_r: limits.Rank
    lora_alpha: limits.Alpha
    lora_dropout: limits.Dropout
    lora_targets: Literal[TARGETS]  # type: ignore[valid-type]  # mypy reads no constants here
    sequences_per_step: limits.Sequences
    micro_batch: limits.Sequences
    learning_rate: limits.LearningRate
    # A bool in older files.
    gradient_checkpointing: Literal[RECOMPUTE] | bool  # type: ignore[valid-type]  # mypy reads no constants here
    answer_share: limits.Share
    implementation: Literal[OPTIMIZED, REFERENCE] = OPTIMIZED  # type: ignore[valid-type]  # mypy reads no constants here
    optimizer: Literal["adamw"] = "adamw"  # in older files: the one that there is

    def __post_init__(self):
        if self.sequences_per_step % self.micro_batch:
            raise ValueError("needs sequences_per_step to be a multiple of micro_batch")

    def recipe(self) -> Recipe:
        values = msgspec.structs.asdict(self)
        del values["optimizer"]
        return Recipe(**Recipe.from_older(values))


class _Architecture(Strict, frozen=True):
    """The keys of config.json that models.yaml may give; a config.json itself may have any."""

    model_type: str
    hidden_size: limits.Width
    intermediate_size: limits.Width
    num_hidden_layers: limits.Layers
    num_attention_heads: limits.Heads
    num_key_value_heads: limits.Heads
    vocab_size: limits.Vocabulary
    tie_word_embeddings: bool
    head_dim: limits.Width | UnsetType = UNSET
    partial_rotary_factor: limits.Share | UnsetType = UNSET
    sliding_window: limits.Count | UnsetType | None = UNSET  # None: attention is full


class _ModelBlock(Strict, frozen=True):
    window: limits.Context
    architecture: _Architecture
    hub_id: str | None = None
    params_m: limits.Millions | None = None
    aliases: tuple[str, ...] = ()
    ttft: dict[str, Any] | None = None  # some of TuneDefaults' fields
    needs_range: Literal["bf16"] | None = None  # harness.catalog.trainable


class _File(Strict, frozen=True):
    defaults: Defaults
    recipe: _RecipeBlock
    ttft: TuneDefaults
    models: dict[str, Any]  # of _ModelBlock, read one by one: msgspec does not say under which name an error is


@dataclass(frozen=True)
class Catalog:
    path: Path
    defaults: Defaults
    recipe: Recipe
    ttft: TuneDefaults
    models: dict[str, ModelSpec]

    def find(self, name: str, window: int | None = None) -> ModelSpec:
        """The model called `name`: a name or alias of the file, a folder with a config.json, a GGUF file, or a hub id.

        `window`, tokens, is the longest context of a folder or hub id whose config says none. Raises UserError, with
        the nearest names or that there is no such folder, if it is none of these, and WindowUnknown.
        """
        # Names of the file come before folders and hub ids, so that a folder cannot take a name over.
        if name in self.models:
            return self.models[name]
        for spec in self.models.values():
            if name in spec.aliases or name == spec.hub_id:
                return spec
        folder = user_path(name)
        if folder.is_dir():
            return model_folder.from_folder(folder, window)
        if is_gguf(name):
            return model_folder.from_gguf(folder)
        if len(name) <= _LONGEST_HUB_ID and _HUB_ID.fullmatch(name):
            return model_folder.from_hub(name, window)
        if "/" in name:
            raise UserError(
                f"no folder {quoted(name)} here; name one with a config.json, or a model of `harness models`"
            )
        raise unknown("model", name, [*self.models, *(alias for m in self.models.values() for alias in m.aliases)])


def trimmed(spec: ModelSpec) -> ModelSpec:
    """`spec` under its name with a trimmed vocabulary, for that is another model in every output."""
    name = spec.name if spec.name.endswith(TRIMMED) else spec.name + TRIMMED
    return replace(spec, name=name, params_m=None)


def default_path() -> Path:
    """models.yaml of the folder one is in, else the one that came with the program."""
    here = Path("models.yaml")
    if here.exists():
        return here
    # A checkout has it at its root, a wheel inside the package.
    beside, packaged = (Path(__file__).parents[up] / "models.yaml" for up in (2, 1))
    return beside if beside.exists() else packaged


def load(path: Path | None = None) -> Catalog:
    """The catalogue in `path`. Raises UserError with file, line and key for any fault in it."""
    document = parse_file(path or default_path())
    file = document.convert(_File)
    # Names and aliases are one namespace: an alias must not be some other model's name.
    models: dict[str, ModelSpec] = {}
    owners: dict[str, str] = {}
    for name in file.models:
        if not _NAME.fullmatch(name):
            raise document.error(
                ("models", name), f"is called {quoted(name)}; a name may hold letters, digits, '.', '_' and '-' only"
            )
        models[name] = spec = _model(document, name)
        for alias in (name, *spec.aliases):
            if alias in owners:
                raise document.error(
                    ("models", name), f"uses the name {quoted(alias)}, which {owners[alias]} has already"
                )
            owners[alias] = name
    if file.defaults.model not in owners:
        raise document.error(
            ("defaults", "model"), f"names {quoted(file.defaults.model)}, which is not among the models"
        )
    return Catalog(document.path, file.defaults, file.recipe.recipe(), file.ttft, models)


def _model(document: Document, name: str) -> ModelSpec:
    block = document.convert(_ModelBlock, "models", name)
    # Checked as whole settings, over the file's own; only the keys that the model gives are kept.
    tuning = None
    if block.ttft is not None:
        whole = document.convert(TuneDefaults, "models", name, "ttft", under=document.raw["ttft"])
        tuning = {key: getattr(whole, key) for key in block.ttft}
    return ModelSpec(
        name,
        msgspec.to_builtins(block.architecture) | {"max_position_embeddings": block.window},
        block.window,
        hub_id=block.hub_id,
        params_m=block.params_m,
        aliases=block.aliases,
        ttft=tuning,
        needs_range=block.needs_range,
    )
