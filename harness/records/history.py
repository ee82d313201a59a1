"""All measurements that lie in folders beside each other, older ones of the same cell too."""

from pathlib import Path

from harness.errors import UserError
from harness.records.measurement import Measurement
from harness.records.store import MEASUREMENTS, lines_of

MOST_FILES = 200
_NAMES = "records*.jsonl"  # an archive may hold several sweeps of one folder


def read_beside(folder: Path) -> tuple[list[Measurement], list[Path]]:
    """Every measurement in `folder` and in the folders beside it, of any rule, each once, and the files read.

    Raises UserError where one cannot be read.
    """
    paths = sorted(folder.resolve().parent.glob(f"*/{_NAMES}"), key=str)
    paths = [path for path in paths if ".corrupt." not in path.name]
    # The newest, if there are very many, and this folder's own in any case.
    paths.sort(key=lambda path: (path.parent == folder.resolve(), _time_of(path)))
    made: dict[tuple[str, str], Measurement] = {}
    read = []
    for path in paths[-MOST_FILES:]:
        try:
            good, _ = lines_of(path, MEASUREMENTS)
        except OSError as problem:
            raise UserError(f"{path}: cannot be read ({problem.strerror})") from None
        read.append(path)
        made |= {(row.key, row.started): row for _, row in good if row is not None}
    return list(made.values()), read


def _time_of(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
