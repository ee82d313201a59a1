"""training_args.bin, which transformers saves beside a trainer_state.json.

It is a pickle, and loading one may run any code: its opcodes are gone through, as far as they write a name and a number
after it, and nothing is made of them.
"""

import pickletools
import zipfile
from pathlib import Path

NAME = "training_args.bin"
_MOST_BYTES = 1 << 20  # it has some 7000
_NO_VALUES = ("BINPUT", "LONG_BINPUT", "MEMOIZE", "PUT")  # between a name and its value
_BOOLEANS = {"NEWTRUE": True, "NEWFALSE": False}


def beside(state: Path) -> dict[str, int]:
    """The whole numbers and booleans of the arguments that lie beside the file `state`, or beside the folder of its
    checkpoint; empty where there are none that can be read."""
    folders = [state.parent, *([state.parent.parent] if state.parent.name.startswith("checkpoint-") else [])]
    for folder in folders:
        try:
            return _numbers(_pickle(folder / NAME))
        except (OSError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile):
            continue  # as good as not there: what it would tell is asked for or assumed
    return {}


def _pickle(path: Path) -> bytes:
    """The pickle in an archive of torch's. Raises ValueError where there is none of a possible size."""
    if not path.is_file() or path.stat().st_size > _MOST_BYTES:
        raise ValueError("no such file")
    with zipfile.ZipFile(path) as archive:
        (member,) = (entry for entry in archive.infolist() if entry.filename.endswith("/data.pkl"))
        if member.file_size > _MOST_BYTES or member.compress_type != zipfile.ZIP_STORED:
            raise ValueError("none that torch writes")
        return archive.read(member)


def _numbers(content: bytes) -> dict[str, int]:
    values: dict[str, int] = {}
    name = None
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in _NO_VALUES:
            continue
        value = _BOOLEANS.get(opcode.name, argument)
        if name is not None and isinstance(value, int):
            values.setdefault(name, value)
        name = argument if isinstance(argument, str) and "UNICODE" in opcode.name else None
    return values
