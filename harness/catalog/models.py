"""The candidates: models.yaml, a folder with a config.json, or a hub id."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from harness.catalog.precisions import PRECISIONS
from harness.catalog.strict_yaml import Document, Strict, parse_file
from harness.errors import UserError, unknown
from harness.records.cell import OPTIMIZED, RECOMPUTE, REFERENCE, TARGETS, ModelSpec, Recipe

TRIMMED = "-trim"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# Names that configs give to the longest context, the surest first.
WINDOWS = (
    "max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "max_seq_length", "max_seq_len",
    "seq_length", "context_length", "model_max_length", "max_target_positions",
)  # fmt: skip
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

Count = Annotated[int, Meta(gt=0)]
Positive = Annotated[float, Meta(gt=0)]
_NotNegative = Annotated[float, Meta(ge=0)]


class Contexts(Strict, frozen=True):
    """Tokens, by kind of device."""

    cuda: tuple[Count, ...]
    cpu: tuple[Count, ...]

    def __getitem__(self, kind: str) -> tuple[int, ...]:
        return getattr(self, kind)


class Seconds(Strict, frozen=True):
    """Seconds, by kind of device."""

    cuda: Positive
    cpu: Positive

    def __getitem__(self, kind: str) -> float:
        return getattr(self, kind)


class Defaults(Strict, frozen=True):
    """A sweep's settings where the command line gives none."""

    model: str
    precisions: tuple[Literal[tuple(PRECISIONS)], ...]  # type: ignore[valid-type]  # mypy reads no constants here
    contexts: Contexts
    budget_hours: Positive
    steps: Count
    test_tasks: Annotated[int, Meta(ge=0)]
    sample_seconds: Seconds
    cap_seconds: Seconds


class TuneDefaults(Strict, frozen=True):
    """A fine-tune's settings where the command line gives none; a model of models.yaml may have its own.

    `grid_limit` is the most cells per side of the grids that a task shows; `learning_rate` None is the recipe's.
    """

    set: str
    grid_limit: Count
    tasks: Count
    steps: Count
    context: Count
    views: Count
    learning_rate: Positive | None = None

    def override(self, **given: Any) -> "TuneDefaults":
        """These settings with the values that are given; None changes nothing."""
        return msgspec.structs.replace(self, **{name: value for name, value in given.items() if value is not None})

    def of(self, spec: ModelSpec) -> "TuneDefaults":
        return self.override(**(spec.ttft or {}))


class _RecipeBlock(Strict, frozen=True):
    """The fields of Recipe that models.yaml gives; the others are the command line's alone."""

    lora_r: Annotated[int, Meta(ge=0)]
    lora_alpha: Annotated[int, Meta(ge=0)]
    lora_dropout: _NotNegative
    lora_targets: Literal[TARGETS]  # type: ignore[valid-type]  # mypy reads no constants here
    sequences_per_step: Count
    micro_batch: Annotated[int, Meta(ge=0)]
    learning_rate: _NotNegative
    # A bool in older files.
    gradient_checkpointing: Literal[RECOMPUTE] | bool  # type: ignore[valid-type]  # mypy reads no constants here
    answer_share: Annotated[float, Meta(gt=0, le=1)]
    implementation: Literal[OPTIMIZED, REFERENCE] = OPTIMIZED  # type: ignore[valid-type]  # mypy reads no constants here
    optimizer: Literal["adamw"] = "adamw"  # in older files: the one that there is

    def __post_init__(self):
        if not self.micro_batch or not self.lora_r or self.sequences_per_step % self.micro_batch:
            raise ValueError("needs sequences_per_step to be a multiple of micro_batch, and lora_r >= 1")

    def recipe(self) -> Recipe:
        values = msgspec.structs.asdict(self)
        del values["optimizer"]
        return Recipe(**Recipe.from_older(values))


class _Architecture(Strict, frozen=True):
    """The keys of config.json that models.yaml may give; a config.json itself may have any."""

    model_type: str
    hidden_size: Count
    intermediate_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    num_key_value_heads: Count
    vocab_size: Count
    tie_word_embeddings: bool
    head_dim: Count | UnsetType = UNSET
    partial_rotary_factor: Positive | UnsetType = UNSET
    sliding_window: Count | UnsetType | None = UNSET  # None: attention is full


class _ModelBlock(Strict, frozen=True):
    window: Count
    architecture: _Architecture
    hub_id: str | None = None
    params_m: Positive | None = None
    aliases: tuple[str, ...] = ()
    ttft: dict[str, Any] | None = None  # some of TuneDefaults' fields


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
        """The model called `name`: a name or alias of the file, a folder with a config.json, or a hub id.

        `window`, tokens, is the longest context of a folder or hub id whose config says none. Raises UserError, with
        the nearest names, if it is none of these, and WindowUnknown.
        """
        # Names of the file come before folders and hub ids, so that a folder cannot take a name over.
        if name in self.models:
            return self.models[name]
        for spec in self.models.values():
            if name in spec.aliases or name == spec.hub_id:
                return spec
        folder = Path(name).expanduser()
        if folder.is_dir():
            return from_folder(folder, window)
        if _HUB_ID.fullmatch(name) and not name.startswith("."):
            return _from_hub(name, window)
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
                ("models", name), f"is called {name!r}; a name may hold letters, digits, '.', '_' and '-' only"
            )
        models[name] = spec = _model(document, name)
        for alias in (name, *spec.aliases):
            if alias in owners:
                raise document.error(("models", name), f"uses the name {alias!r}, which {owners[alias]} has already")
            owners[alias] = name
    if file.defaults.model not in owners:
        raise document.error(("defaults", "model"), f"names {file.defaults.model!r}, which is not among the models")
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
    )


def from_folder(folder: Path, window: int | None = None) -> ModelSpec:
    """The model whose config.json lies in `folder`; `window` is its longest context where the file says none.

    Raises UserError where there is none that can be read, and WindowUnknown where no window is found.
    """
    path = folder / "config.json"
    try:
        # Any JSON file could lie there; model_type is what transformers builds a model by.
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
            raise ValueError("it names no model_type")
    except OSError as problem:
        raise UserError(f"{folder}: no config.json that can be read ({problem.strerror})") from None
    except ValueError as problem:
        raise UserError(f"{path}: is no model's config.json ({problem})") from None
    if "auto_map" in config:
        # Code that comes with a model is never run; the architecture must be one that transformers knows.
        config.pop("auto_map")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-.") or "model"
    return ModelSpec(name[:64], config, _max_context(config, path) or _given(window, path), path=str(folder.resolve()))


def _from_hub(hub_id: str, window: int | None = None) -> ModelSpec:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        # From the cache if it is there; else only this small file is downloaded.
        config = Path(hf_hub_download(hub_id, "config.json", etag_timeout=5))
    except LocalEntryNotFoundError:
        raise UserError(
            f"{hub_id}: not in the hub's cache, and the hub cannot be reached; "
            "name a folder with its config.json, or a model of `harness models`"
        ) from None
    except (EntryNotFoundError, HfHubHTTPError) as problem:
        raise UserError(f"{hub_id}: the hub has no config.json for it ({type(problem).__name__})") from None
    spec = from_folder(config.parent, window)
    return ModelSpec(hub_id.split("/")[1], spec.architecture, spec.max_context, hub_id=hub_id)


class WindowUnknown(UserError):
    """A config.json says no window under a name that is known: `path`. Whoever knows more asks again with one."""

    def __init__(self, path: Path):
        super().__init__(f"{path}: says nowhere how many tokens the model takes; give them with --window")
        self.path = path


def _given(window: int | None, path: Path) -> int:
    if window is None:
        raise WindowUnknown(path)
    return window


def _max_context(config: dict[str, Any], path: Path) -> int | None:
    # A multimodal model's text part, which has a config of its own, is what is trained.
    text = config.get("text_config")
    for part in (text if isinstance(text, dict) else {}, config):
        for name in WINDOWS:
            if (tokens := part.get(name)) is not None:
                if type(tokens) is not int or tokens < 1:
                    raise UserError(f"{path}: {name} must be a positive whole number, not {tokens!r}")
                return tokens
    return None
