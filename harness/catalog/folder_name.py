"""What a model in a folder is called: as the folder, or by those above it where its own name says nothing.

Kaggle mounts models as SLUG/FRAMEWORK/VARIATION/VERSION, the hub's cache keeps models--OWNER--NAME/snapshots/HASH, and
trainers write checkpoint-500: the last part alone would name many models alike.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.records.cell import ModelSpec

_LONGEST = 64
_FRAMEWORKS = ("transformers", "pytorch", "safetensors", "flax", "jax", "keras", "other")
_SAYS_NOTHING = re.compile(r"v?[0-9]+|checkpoint-[0-9]+|[0-9a-f]{40}", re.IGNORECASE)


def name_of(folder: Path, config: dict[str, Any]) -> str:
    """The name of the model in `folder`, a whole path; its config.json, `config`, is asked where no folder tells."""
    parts = [cleaned for part in folder.parts[1:] if (cleaned := _clean(part))]
    *above, last = parts or ["model"]
    if not _SAYS_NOTHING.fullmatch(last):
        return shortened(last)
    # Kaggle's version of a variation, unless the variation repeats the name.
    if len(above) >= 3 and above[-2].lower() in _FRAMEWORKS:
        slug, _, variation = above[-3:]
        if variation.lower() == "default":
            variation = slug
        return shortened(f"{variation if variation.startswith(slug) else f'{slug}-{variation}'}-v{last.lstrip('vV')}")
    if len(above) >= 2 and above[-1] == "snapshots" and above[-2].startswith("models--"):
        return shortened(f"{above[-2].split('--')[-1]}-{last[:8]}")
    named = next((part for part in reversed(above) if not _SAYS_NOTHING.fullmatch(part)), "")
    return shortened(f"{named or _source(config)}-{last}")


def told_apart(specs: Sequence[ModelSpec], fixed: Sequence[ModelSpec]) -> list[ModelSpec]:
    """`specs`, each of those that share a name with the name of the folder above it, or of its owner on the hub, before
    its own; where that is another's name, with a digest of where it is. Those in `fixed` keep their names."""
    counts = Counter(spec.name for spec in specs)
    alike = [spec for spec in specs if counts[spec.name] > 1 and spec not in fixed]
    taken = Counter([*counts, *map(_with_owner, alike)])

    def longer(spec: ModelSpec) -> ModelSpec:
        name = _with_owner(spec)
        return replace(spec, name=name if taken[name] == 1 else _with_digest(spec))

    return [longer(spec) if spec in alike else spec for spec in specs]


def shortened(name: str) -> str:
    """`name` in at most 64 characters, a longer one with a digest of the whole."""
    if len(name) <= _LONGEST:
        return name
    return f"{name[: _LONGEST - 7]}-{_digest(name)}"


def _with_owner(spec: ModelSpec) -> str:
    owner = Path(spec.path).parent.name if spec.path else (spec.hub_id or "").partition("/")[0]
    return shortened("-".join(filter(None, (_clean(owner), spec.name))))


def _with_digest(spec: ModelSpec) -> str:
    return shortened(f"{spec.name}-{_digest(spec.path or spec.hub_id or '')}")


def _source(config: dict[str, Any]) -> str:
    """The name that a config keeps of where it came from: "Qwen/Qwen2.5-0.5B" is Qwen2.5-0.5B."""
    source = config.get("_name_or_path")
    return (_clean(source.rstrip("/").rpartition("/")[2]) if isinstance(source, str) else "") or "model"


def _clean(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:6]
