"""Reads a log of any of the kinds that this package knows: what it is, its content says, not its name."""

from pathlib import Path

from harness.errors import UserError
from harness.files import parse_json, read_bytes
from harness.logs import console, notebook, peft_comparison, trainer
from harness.logs.logged import LoggedRun

MOST_BYTES = 1 << 28
_KINDS = "trainer_state.json, a trainer's output, a notebook with outputs, or a result of PEFT's method_comparison"


def read_log(path: Path) -> LoggedRun:
    """The run that the file tells of. Raises UserError where it cannot be read, and where it is no such log."""
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: is no regular file; name a log: {_KINDS}")
        content = read_bytes(path, MOST_BYTES)
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise UserError(f"{path}: cannot be read ({reason}); name a log: {_KINDS}") from None
    run = _run_of(content)
    if not run:
        raise UserError(f"{path}: is no log of a training; it takes {_KINDS}")
    return run


def _run_of(content: bytes) -> LoggedRun | None:
    try:
        value = parse_json(content)
    except ValueError:
        return console.read_console(content.decode("utf-8", "replace"))
    if trainer.is_state(value):
        return trainer.read_state(value)
    if notebook.is_notebook(value):
        return notebook.read_notebook(value)
    if peft_comparison.is_comparison(value):
        return peft_comparison.read_comparison(value)
    return trainer.read_results(value) if trainer.is_results(value) else None
