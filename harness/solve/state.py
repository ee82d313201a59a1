"""When a run began and when it must be over, on disk: whoever starts it again keeps to that."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from harness.files import read_json, replace_atomically
from harness.records.stored import from_stored, to_stored
from harness.shard import Shard
from harness.solve.simulation import Foreseen

_Moment = Annotated[float, Meta(gt=0, lt=1e11)]  # seconds since the epoch


@dataclass(frozen=True)
class RunState:
    """`key` names the run, or its shard (name_of). `began` and `end` in seconds since the epoch; `finished` where
    nothing is left to do. `planned` is what was foreseen before the first task, `first_pass_h` the hours from `began`
    until every task had been tried."""

    key: str
    began: _Moment
    end: _Moment
    finished: bool = False
    planned: Foreseen | None = None
    first_pass_h: float | None = None


def name_of(run: str, shard: Shard | None) -> str:
    """The key of a run's state: each of its shards in one folder has a deadline of its own."""
    return f"{run}-{shard.number}-of-{shard.count}" if shard else run


def path_of(folder: Path, key: str) -> Path:
    return folder / "runs" / f"{key}.json"


def load(folder: Path, key: str) -> RunState | None:
    """The state called `key`; None where there is none, or none that can be read."""
    try:
        state = from_stored(read_json(path_of(folder, key), 1 << 16), RunState)
    except (OSError, ValueError):
        return None
    return state if state.key == key and state.end > state.began else None


def save(folder: Path, state: RunState) -> None:
    """Writes the state whole or not at all. Raises UserError where it cannot be written."""
    replace_atomically(path_of(folder, state.key), json.dumps(to_stored(state)), make_folder=True)
