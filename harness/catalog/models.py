"""The candidates: models.yaml, a folder with a config.json, or a hub id."""

import json
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from harness.catalog import strict_yaml
from harness.catalog.precisions import PRECISIONS
from harness.errors import UserError, unknown
from harness.records.cell import OPTIMIZED, RECOMPUTE, REFERENCE, TARGETS, ModelSpec, Recipe

DEVICE_KINDS = ("cuda", "cpu")
_ARCHITECTURE = {  # what models.yaml may say of an architecture; a config.json may say anything
    "model_type": str,
    "hidden_size": int,
    "intermediate_size": int,
    "num_hidden_layers": int,
    "num_attention_heads": int,
    "num_key_value_heads": int,
    "vocab_size": int,
    "tie_word_embeddings": bool,
}
_OPTIONAL = {"head_dim": int, "partial_rotary_factor": float}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# Of a recipe: what the command line says, or has a default in an older file.
_NOT_IN_THE_FILE = (
    *("implementation", "trim_vocab", "kernels", "data_parallel"),
    *("method", "prepared_for_kbit", "layer_split"),
)
TRIMMED = "-trim"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Defaults:
    """What a sweep does where the command line is silent. `contexts` and the seconds are by kind of device."""

    model: str
    precisions: tuple[str, ...]
    contexts: dict[str, tuple[int, ...]]
    budget_hours: float
    steps: int
    test_tasks: int
    sample_seconds: dict[str, float]
    cap_seconds: dict[str, float]


@dataclass(frozen=True)
class Ttft:
    """What measuring accuracy does where the command line is silent; models.yaml may say otherwise for one model.

    `grid_limit` is the most cells a side of the grids that a task shows; `learning_rate` None is the recipe's.
    """

    set: str
    grid_limit: int
    tasks: int
    steps: int
    context: int
    views: int
    learning_rate: float | None = None

    def of(self, spec: ModelSpec) -> "Ttft":
        return replace(self, **(spec.ttft or {}))


@dataclass(frozen=True)
class Catalog:
    path: Path
    defaults: Defaults
    recipe: Recipe
    ttft: Ttft
    models: dict[str, ModelSpec]

    def find(self, name: str) -> ModelSpec:
        """The model called `name`: a name or alias of the file, a folder with a config.json, or a hub id.

        Raises UserError, with the nearest names, if it is none of these.
        """
        if name in self.models:
            return self.models[name]
        for spec in self.models.values():
            if name in spec.aliases or name == spec.hub_id:
                return spec
        folder = Path(name).expanduser()
        if folder.is_dir():
            return from_folder(folder)
        if _HUB_ID.fullmatch(name) and not name.startswith("."):
            return _from_hub(name)
        raise unknown("model", name, [*self.models, *(alias for m in self.models.values() for alias in m.aliases)])


def trimmed(spec: ModelSpec) -> ModelSpec:
    """`spec` under the name that its trimmed vocabulary has in every output, for that is another model."""
    name = spec.name if spec.name.endswith(TRIMMED) else spec.name + TRIMMED
    return replace(spec, name=name, params_m=None)


def default_path() -> Path:
    """models.yaml of the folder one is in, else the one that came with the program."""
    here = Path("models.yaml")
    if here.exists():
        return here
    beside, packaged = (Path(__file__).parents[up] / "models.yaml" for up in (2, 1))
    return beside if beside.exists() else packaged


def load(path: Path | None = None) -> Catalog:
    """The catalogue in `path`. Raises UserError naming file, line and key for whatever is wrong in it."""
    path = path or default_path()
    top = strict_yaml.read(path)
    defaults, recipe, blocks = _defaults(top.block("defaults")), _recipe(top.block("recipe")), top.block("models")
    ttft = Ttft(**_ttft(top.block("ttft"), whole=True))
    top.done()
    models: dict[str, ModelSpec] = {}
    taken: dict[str, str] = {}
    for name in list(blocks.items):
        block = blocks.block(name)
        if not _NAME.fullmatch(name):
            raise block.error(block.node, f"the model name {name!r}", "may hold letters, digits, '.', '_' and '-' only")
        models[name] = spec = _model(name, block)
        for said in (name, *spec.aliases):
            if said in taken:
                raise block.error(block.node, block.trail, f"uses the name {said!r}, which {taken[said]} has already")
            taken[said] = name
    if defaults.model not in taken:
        raise UserError(f"{path}: defaults.model {defaults.model!r} is not among the models")
    return Catalog(path, defaults, recipe, ttft, models)


def from_folder(folder: Path) -> ModelSpec:
    """The model whose config.json lies in `folder`. Raises UserError where there is none that can be read."""
    said = folder / "config.json"
    try:
        config = json.loads(said.read_text(encoding="utf-8"))
        if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
            raise ValueError("it names no model_type")
    except OSError as problem:
        raise UserError(f"{folder}: no config.json that can be read ({problem.strerror})") from None
    except ValueError as problem:
        raise UserError(f"{said}: is no model's config.json ({problem})") from None
    if "auto_map" in config:
        # Code that comes with a model is never run; the architecture must be one that transformers knows.
        config.pop("auto_map")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-.") or "model"
    return ModelSpec(name[:64], config, _window(config, said), path=str(folder.resolve()))


def _from_hub(hub_id: str) -> ModelSpec:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        config = Path(hf_hub_download(hub_id, "config.json", etag_timeout=5))
    except LocalEntryNotFoundError:
        raise UserError(
            f"{hub_id}: not in the hub's cache, and the hub cannot be reached; "
            "name a folder with its config.json, or a model of `harness models`"
        ) from None
    except (EntryNotFoundError, HfHubHTTPError) as problem:
        raise UserError(f"{hub_id}: the hub has no config.json for it ({type(problem).__name__})") from None
    spec = from_folder(config.parent)
    return ModelSpec(hub_id.split("/")[1], spec.architecture, spec.max_context, hub_id=hub_id)


def _window(config: dict[str, Any], said: Path) -> int:
    window = config.get("max_position_embeddings", config.get("n_positions"))
    if type(window) is not int or window < 1:
        raise UserError(f"{said}: max_position_embeddings must be a positive whole number, not {window!r}")
    return window


def _defaults(block: strict_yaml.Block) -> Defaults:
    precisions = tuple(block.take_list("precisions", str))
    for name in precisions:
        strict_yaml.one_of(block, "precisions", name, PRECISIONS)
    contexts = block.block("contexts")
    by_kind = {kind: tuple(contexts.take_list(kind, int)) for kind in DEVICE_KINDS}
    contexts.done()
    seconds = {}
    for key in ("sample_seconds", "cap_seconds"):
        each = block.block(key)
        seconds[key] = {kind: each.take(kind, float) for kind in DEVICE_KINDS}
        each.done()
    found = Defaults(
        block.take("model", str),
        precisions,
        by_kind,
        block.take("budget_hours", float),
        block.take("steps", int),
        block.take("test_tasks", int),
        **seconds,
    )
    block.done()
    return found


def _recipe(block: strict_yaml.Block) -> Recipe:
    kinds = {name: type(value) for name, value in vars(Recipe()).items() if name not in _NOT_IN_THE_FILE}
    if strict_yaml.is_bool(block.items.get("gradient_checkpointing")):  # as older files say it
        kinds["gradient_checkpointing"] = bool
    said = {name: block.take(name, kind) for name, kind in kinds.items()}
    # An older file names the one optimiser that there is.
    optimizer = block.take("optimizer", str, "adamw")
    recipe = Recipe(**Recipe.from_older(said), implementation=block.take("implementation", str, OPTIMIZED))
    block.done()
    strict_yaml.one_of(block, "implementation", recipe.implementation, (OPTIMIZED, REFERENCE))
    strict_yaml.one_of(block, "optimizer", optimizer, ("adamw",))
    strict_yaml.one_of(block, "gradient_checkpointing", recipe.gradient_checkpointing, RECOMPUTE)
    strict_yaml.one_of(block, "lora_targets", recipe.lora_targets, TARGETS)
    if not recipe.micro_batch or not recipe.lora_r or recipe.sequences_per_step % recipe.micro_batch:
        raise UserError(
            f"{block.path}: recipe.sequences_per_step must be a multiple of recipe.micro_batch, lora_r >= 1"
        )
    if not 0 < recipe.answer_share <= 1:
        raise UserError(f"{block.path}: recipe.answer_share must be above 0 and at most 1, not {recipe.answer_share}")
    return recipe


def _ttft(block: strict_yaml.Block, whole: bool) -> dict[str, Any]:
    """The values of a ttft block; `whole` says that none but the learning rate may be missing."""
    kinds = {"set": str, "learning_rate": float}
    said = {
        f.name: block.take(f.name, kinds.get(f.name, int), ... if whole and f.name != "learning_rate" else None)
        for f in fields(Ttft)
    }
    block.done()
    given = {name: value for name, value in said.items() if value is not None}
    for name, value in given.items():
        if value == 0:
            raise UserError(f"{block.path}: {block.named(name)} must be above 0")
    return given


def _model(name: str, block: strict_yaml.Block) -> ModelSpec:
    said = block.block("architecture")
    architecture = {key: said.take(key, kind) for key, kind in _ARCHITECTURE.items()}
    architecture |= {key: said.take(key, kind) for key, kind in _OPTIONAL.items() if key in said.items}
    if "sliding_window" in said.items:  # null says that attention is full
        null = said.items["sliding_window"].value in ("null", "~", "")
        architecture["sliding_window"] = (
            said.items.pop("sliding_window") and None if null else said.take("sliding_window", int)
        )
    said.done()
    window = block.take("window", int)
    spec = ModelSpec(
        name,
        architecture | {"max_position_embeddings": window},
        window,
        hub_id=block.take("hub_id", str, None),
        params_m=block.take("params_m", float, None),
        aliases=tuple(block.take_list("aliases", str, [])),
        ttft=_ttft(block.block("ttft"), whole=False) if "ttft" in block.items else None,
    )
    block.done()
    return spec
