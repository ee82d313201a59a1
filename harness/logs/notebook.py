"""Notebooks with their outputs: Unsloth's, TRL's and others' that train in a cell."""

import re
from typing import Any

from harness.logs.console import read_console
from harness.logs.logged import LoggedRun, mapping, text


def is_notebook(value: Any) -> bool:
    return isinstance(mapping(value).get("cells"), list)


def read_notebook(value: dict[str, Any]) -> LoggedRun | None:
    """The run of its outputs, with the settings of its code; None where no output tells of one."""
    printed: list[str] = []
    code: list[str] = []
    for cell in map(mapping, value["cells"]):
        if cell.get("cell_type") != "code":
            continue
        # A comment may name another value than the one that is set.
        code.append(re.sub(r"(?m)^[ \t]*#.*$|\s#[^'\"\n]*$", "", _joined(cell.get("source"))))
        outputs = cell.get("outputs")
        for output in map(mapping, outputs if isinstance(outputs, list) else ()):
            printed += [_joined(output.get("text")), _joined(mapping(output.get("data")).get("text/plain"))]
    run = read_console("\n".join(printed), "\n".join(code))
    if not run:
        return None
    colab = mapping(mapping(value.get("metadata")).get("colab"))
    return run.or_else(LoggedRun(card=text(colab.get("gpuType"))))


def _joined(lines: Any) -> str:
    """A cell's text, which the format has as one text or as a list of lines."""
    if isinstance(lines, str):
        return lines
    return "".join(line for line in lines if isinstance(line, str)) if isinstance(lines, list) else ""
