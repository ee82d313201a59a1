"""Where a model's weights come from: a folder, the hub's cache, the hub, the program itself, or made at random."""

import hashlib
import re
import socket
from pathlib import Path
from typing import Any

from harness import network
from harness.catalog import fingerprint, gguf_model, trainable
from harness.errors import UserError, first_line
from harness.files import home_relative, read_json, user_path
from harness.records.cell import ModelSpec
from harness.text import quoted, say_once

RANDOM = "random"
BUNDLED = "bundled:"  # before the name of a model that comes with the program, and a digest of its weights
# Before the quantisation of a GGUF file, its digest and its path, as in "gguf:Q4_1:0f3a99c1@~/model.gguf", and before
# the digest of a folder and its path, "files:0f3a99c1@~/model". Rows from before have no digest.
GGUF, FILES = "gguf:", "files:"
# A folder of the hub's cache: the model, and the revision.
_SNAPSHOT = re.compile(r"models--([^/]+)/snapshots/([0-9a-f]{40})/?$")
# What must be the same in weights and in the model they are named for.
_SHAPE = ("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
          "num_key_value_heads", "vocab_size")  # fmt: skip
_ASSETS = Path(__file__).parents[1] / "assets"


def resolve(spec: ModelSpec, choice: str) -> str:
    """Where the weights are: "random", "files:DIGEST@FOLDER", "gguf:QUANTISATION:DIGEST@FILE", a folder of the
    hub's cache, whose name has its revision, or "bundled:NAME@DIGEST" (see `folder`).

    `choice` is auto (the program's own, a folder or the hub's cache where the weights are there, else random: never a
    download), hub, random, a folder, or a GGUF file. Speed and memory do not depend on the values: random weights
    measure the same, except int8 on a card (harness.catalog.precisions.lower_bound).

    Weights that are quantised already are not loaded: auto takes random ones and says so. Those of a GGUF are
    dequantised. Raises UserError for a folder without safetensors or with quantised ones, for a GGUF that is not read
    (harness.catalog.gguf_model), for other files than a `choice` with a digest means, and for hub where the model has
    no hub id.
    """
    if choice == RANDOM:
        return RANDOM
    if choice == "auto" and spec.quantized:
        say_once(f"{spec.name}: {trainable.already_quantized(spec)} and are not loaded; random ones are measured")
        return RANDOM
    if choice == "hub" and spec.quantized:
        raise UserError(f"{spec.name}: {trainable.not_loaded(spec)}")
    if choice == "auto":
        # The digest goes into the record's key: retrained weights are another measurement.
        if not spec.path and not spec.hub_id and _has_safetensors(_ASSETS / spec.name):
            _check_same(spec, _ASSETS / spec.name)
            digest = hashlib.sha256((_ASSETS / spec.name / "model.safetensors").read_bytes()).hexdigest()
            return f"{BUNDLED}{spec.name}@{digest[:8]}"
        if spec.path and is_gguf(spec.path):
            return _of_gguf(spec, user_path(spec.path))
        if spec.path:
            return _of_folder(user_path(spec.path)) if _has_safetensors(user_path(spec.path)) else RANDOM
        # Never a download unless it is asked for.
        return _cached(spec.hub_id) or RANDOM
    if choice == "hub":
        if not spec.hub_id:
            raise UserError(f"{spec.name} has no hub_id to download from; use --weights auto, random or a folder")
        return _cached(spec.hub_id) or _download(spec.hub_id)
    # A recipe file has what a row says.
    path = user_path(_file_of(choice))
    if path.is_file() or is_gguf(choice):
        return _of_gguf(spec, path, _digest_in(choice))
    if not path.is_dir():
        raise UserError(f"--weights {quoted(choice)} is none of auto, hub, random, no folder and no GGUF file")
    # A folder of the user's own: complete, and of the architecture that was named.
    for needed, exists in (
        ("config.json", (path / "config.json").exists()),
        ("*.safetensors", _has_safetensors(path)),
    ):
        if not exists:
            raise UserError(
                f"--weights {choice}: the folder has no {needed}; pickled weights (.bin, .pt) are never loaded"
            )
    _check_same(spec, path)
    return _of_folder(path, _digest_in(choice))


def is_gguf(path: str) -> bool:
    """Whether `path` names a GGUF file, which need not be there."""
    return path.lower().endswith(gguf_model.SUFFIX) and not user_path(path).is_dir()


def _file_of(weights: str) -> str:
    """The path of a file or a folder without what stands before it in rows; other weights as they are."""
    return weights.partition("@")[2] if weights.startswith((GGUF, FILES)) else weights


def _digest_in(weights: str) -> str:
    """That of the file or the folder which a row or a recipe file names; else empty."""
    kind, *of = weights.partition("@")[0].split(":") if weights.startswith((GGUF, FILES)) else [""]
    return of[-1] if len(of) > (f"{kind}:" == GGUF) else ""


def without_digest(weights: str) -> str:
    """Weights of a file or a folder as rows from before name them; others as they are."""
    if weights.startswith(FILES):
        return _file_of(weights)
    return weights.replace(f":{digest}@", "@", 1) if (digest := _digest_in(weights)) else weights


def label(weights: str) -> str:
    """What rows and tables call weights that are not as they were published: "gguf Q4_1, dequantised"; else empty."""
    kind = without_digest(weights).removeprefix(GGUF).partition("@")[0]
    return f"gguf {kind}, dequantised" if weights.startswith(GGUF) else ""


def short(weights: str) -> str:
    """Weights named by `resolve` in at most eight letters: their digest, their revision of the hub, or "random"; of
    rows from before the end of their path."""
    if weights.startswith(BUNDLED):
        return weights.rpartition("@")[2][:8]
    if revision := _SNAPSHOT.search(weights):
        return revision[2][:8]
    return _digest_in(weights)[:8] or weights.rstrip("/").rpartition("/")[2][-8:]


def folder(weights: str) -> str:
    """The folder, or the GGUF file, that weights named by `resolve` lie in, on this machine; `resolve` may have been
    another one's.

    What that one had in its cache of the hub is in this one's cache, or is downloaded. Raises UserError where they are
    not here.
    """
    if weights.startswith(BUNDLED):
        return str(_ASSETS / weights.removeprefix(BUNDLED).partition("@")[0])
    if weights.startswith(GGUF) or is_gguf(weights):
        path = user_path(_file_of(weights))
        if not path.is_file():
            raise UserError(f"{socket.gethostname()} has no file {path}; put it there, under this path")
        if (digest := _digest_in(weights)) and digest != gguf_model.read(path).digest:
            raise UserError(f"{socket.gethostname()} has another file {path} than is meant; put the same one there")
        gguf_model.must_have_package(path)
        return str(path)
    path = user_path(_file_of(weights))
    if path.is_dir():
        if (digest := _digest_in(weights)) and digest != _digest_of(path):
            raise UserError(f"{socket.gethostname()} has other files in {path} than are meant; put the same ones there")
        return str(path)
    if snapshot := _SNAPSHOT.search(weights):
        return _download(snapshot[1].replace("--", "/"), snapshot[2])
    raise UserError(f"{socket.gethostname()} has no folder {path}; put the weights there, under this path")


def _download(hub_id: str, revision: str | None = None) -> str:
    """The folder of the hub's cache after downloading config and safetensors, with the hub client's own progress; of a
    `revision` that is in the cache nothing is asked of the hub."""
    from huggingface_hub import snapshot_download

    if revision and (folder := _cached(hub_id, revision)):
        return folder
    if not network.reachable(network.hub()):
        raise UserError(
            f"{hub_id} cannot be downloaded: the hub cannot be reached; use --weights auto, random or a folder"
        )
    try:
        snapshot_download(
            hub_id, revision=revision, allow_patterns=["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]
        )
        reason = "there is no whole set of safetensors"
    except (OSError, ValueError) as problem:
        reason = first_line(problem)
    if folder := _cached(hub_id, revision):
        return folder
    raise UserError(f"{hub_id} cannot be downloaded: {reason}; use --weights auto, random or a folder")


def _of_gguf(spec: ModelSpec, path: Path, digest: str = "") -> str:
    model = gguf_model.read(path)
    _check_shape(spec, model.config, path)
    _must_be_meant(path, model.digest, digest)
    return f"{GGUF}{model.quantization}:{model.digest}@{home_relative(path.resolve())}"


def _of_folder(path: Path, digest: str = "") -> str:
    if _SNAPSHOT.search(str(path.resolve())):
        return home_relative(path.resolve())
    now = _digest_of(path)
    _must_be_meant(path, now, digest)
    return f"{FILES}{now}@{home_relative(path.resolve())}"


def _digest_of(path: Path) -> str:
    try:
        return fingerprint.of_folder(path)
    except OSError as problem:
        raise UserError(f"{problem.filename or path}: cannot be read ({problem.strerror})") from None


def _must_be_meant(path: Path, now: str, digest: str) -> None:
    """Raises UserError where a recipe file or a row means other weights, of another `digest`."""
    if digest and digest != now:
        raise UserError(
            f"--weights {path}: other weights than those that were measured ({digest}, and now {now}); measure these, "
            "or put the others there"
        )


def _check_same(spec: ModelSpec, folder: Path) -> None:
    """Raises UserError where the folder's config.json is of another architecture than the model named."""
    try:
        config = read_json(folder / "config.json")
        if not isinstance(config, dict):
            raise ValueError("no mapping")
    except (OSError, ValueError) as problem:
        raise UserError(f"--weights {folder}: its config.json cannot be read ({first_line(problem)})") from None
    if as_what := trainable.quantization_of(config):
        raise UserError(
            f"--weights {folder}: quantised already ({as_what}), and such are not loaded; name unquantised ones"
        )
    _check_shape(spec, config, folder)


def _check_shape(spec: ModelSpec, config: dict[str, Any], where: Path) -> None:
    for key in _SHAPE:
        there, in_spec = config.get(key), spec.architecture.get(key)
        if None not in (there, in_spec) and there != in_spec:
            raise UserError(f"--weights {where}: holds a model of {key} {there}, but {spec.name} has {in_spec}")


def _has_safetensors(folder: Path) -> bool:
    return any(folder.glob("*.safetensors"))


def _cached(hub_id: str | None, revision: str | None = None) -> str | None:
    """The folder of the hub's cache with the whole of the model, if it is there."""
    if not hub_id:
        return None
    from huggingface_hub import try_to_load_from_cache

    # Any file of the snapshot tells its folder.
    config = try_to_load_from_cache(hub_id, "config.json", revision=revision)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    index = folder / "model.safetensors.index.json"
    # Sharded weights count only when all of their shards are there.
    if index.exists():
        try:
            shards = set(read_json(index)["weight_map"].values())
            return str(folder) if all((folder / shard).exists() for shard in shards) else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None  # half a download
    return str(folder) if (folder / "model.safetensors").exists() else None
