"""Notebooks with their outputs: Unsloth's, TRL's and others' that train in a cell."""

import re
from typing import Any

from harness.logs.console import read_console
from harness.logs.logged import LoggedRun, mapping, text
from harness.logs.printed import last_training, plain


def is_notebook(value: Any) -> bool:
    return isinstance(mapping(value).get("cells"), list)


def read_notebook(value: dict[str, Any]) -> LoggedRun | None:
    """The run of its outputs, with the settings of its code; None where no output tells of one."""
    printed: list[str] = []
    code: list[str] = []
    used, evaluated = 0, False
    for cell in map(mapping, value["cells"]):
        if cell.get("cell_type") != "code":
            continue
        # A comment may name another value than the one that is set.
        code.append("\n".join(map(_without_comment, _joined(cell.get("source")).split("\n"))))
        outputs, shown = cell.get("outputs"), []
        for output in map(mapping, outputs if isinstance(outputs, list) else ()):
            data = mapping(output.get("data"))
            shown += [_joined(output.get("text")), _joined(data.get("text/plain"))]
            evaluated = evaluated or "Validation Loss" in _joined(data.get("text/html"))
        # What is set after a training is none of its settings: notebooks load their adapter again at the end.
        if last_training(plain("\n".join(shown))).seconds:
            used = len(code)
        printed += shown
    run = read_console("\n".join(printed), "\n".join(code[: used or None]), evaluated)
    if not run:
        return None
    colab = mapping(mapping(value.get("metadata")).get("colab"))
    return run.or_else(LoggedRun(card=text(colab.get("gpuType"))))


def _without_comment(line: str) -> str:
    """`line` without a comment at its end, in which no quote may stand: it might be a text's."""
    if line.lstrip(" \t").startswith("#"):
        return ""
    after_quote = max(line.rfind("'"), line.rfind('"')) + 1
    comment = re.search(r"\s#", line[after_quote:])
    return line[: after_quote + comment.start()] if comment else line


def _joined(lines: Any) -> str:
    """A cell's text, which the format has as one text or as a list of lines."""
    if isinstance(lines, str):
        return lines
    return "".join(line for line in lines if isinstance(line, str)) if isinstance(lines, list) else ""
