"""Reads a log of any of the kinds that this package knows: what it is, its content says, not its name."""

from pathlib import Path

from harness.errors import UserError
from harness.files import parse_json, read_bytes
from harness.logs import console, notebook, peft_comparison, trainer, training_args
from harness.logs.logged import DATA_PARALLEL, LoggedRun

MOST_BYTES = 1 << 28
_KINDS = "trainer_state.json, a trainer's output, a notebook with outputs, or a result of PEFT's method_comparison"
_PACKED = (b"\x1f\x8b", b"PK\x03\x04", b"\xfd7zXZ", b"BZh", b"\x28\xb5\x2f\xfd")
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_OF_JSON = ("log_history", "cells", "train_info")  # keys of the kinds that are JSON


def read_log(path: Path) -> LoggedRun:
    """The run that the file tells of. Raises UserError where it cannot be read, and where it is no such log."""
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: is no regular file; name a log: {_KINDS}")
        content = read_bytes(path, MOST_BYTES)
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise UserError(f"{path}: cannot be read ({reason}); name a log: {_KINDS}") from None
    try:
        run = _run_of(content)
    except UserError as problem:
        raise UserError(f"{path}: {problem}") from None
    if not run:
        raise UserError(f"{path}: is no log of a training; it takes {_KINDS}")
    if run.tool == trainer.STATE and (cards := _cards_of_one_process(run, training_args.beside(path))) > 1:
        raise UserError(f"{path}: {DATA_PARALLEL.format(cards)}")
    return run


def _cards_of_one_process(run: LoggedRun, arguments: dict[str, int]) -> int:
    """Among how many cards one process shared a micro-batch, by the arguments beside a trainer_state.json: the latter's
    micro-batch is of all of them."""
    own = arguments.get("per_device_train_batch_size", 0)
    shared = run.micro_batch // own if run.micro_batch and own > 0 and run.micro_batch % own == 0 else 1
    return max(shared, arguments.get("_n_gpu", 1))


def _run_of(content: bytes) -> LoggedRun | None:
    """None where it is none. Raises UserError for a packed file, and for JSON that is cut off."""
    if content.startswith(_PACKED):
        raise UserError("it is packed; unpack it first (gunzip, unzip, unxz, unzstd)")
    try:
        value = parse_json(content)
    except ValueError:
        # PowerShell writes UTF-16.
        text = content.decode("utf-16" if content.startswith(_UTF_16) else "utf-8-sig", "replace")
        if text.lstrip().startswith("{") and any(f'"{name}"' in text for name in _OF_JSON):
            raise UserError("it is JSON that is cut off or broken; copy the whole file again") from None
        return console.read_console(text)
    if trainer.is_state(value):
        return trainer.read_state(value)
    if notebook.is_notebook(value):
        return notebook.read_notebook(value)
    if peft_comparison.is_comparison(value):
        return peft_comparison.read_comparison(value)
    return trainer.read_results(value) if trainer.is_results(value) else None
