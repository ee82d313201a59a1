"""Makes the notebooks of their sources, kaggle.py and choose.py in the percent format; install.py is a cell of both.

Cells begin at "# %%": markdown, settings (tagged as papermill's parameters), install, or code. Ids are the cells'
numbers and no cell has an output, so the same source gives the same file.

    python -m notebooks.make
    python -m notebooks.make --check    # exit code 1 where a notebook is not what its source gives
"""

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

FOLDER = Path(__file__).parent
NAMES = ("kaggle", "choose")
_CELL = re.compile(r"^# %%(?: \[(markdown)\]| (settings|install))?\n", re.M)


def notebook(name: str) -> NotebookNode:
    """The notebook of the source `name`. Raises ValueError where the source does not begin with a cell."""
    start, *parts = _CELL.split((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
    if start.strip() or not parts:
        raise ValueError(f"{name}.py: a source begins with a cell, # %%")
    cells = []
    for markdown, kind, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        cell_id = f"{name}-{len(cells):02}"
        if markdown:
            prose = re.sub(r"^# ?", "", text.strip(), flags=re.M)
            cells.append(nbformat.v4.new_markdown_cell(prose, id=cell_id))
            continue
        # Papermill looks for the tag of settings. What installs is for no reader.
        metadata: dict[str, Any] = {"tags": ["parameters"]} if kind == "settings" else {}
        if kind == "install":
            text = (FOLDER / "install.py").read_text(encoding="utf-8") + "\n\nprint(install(INPUT))\n"
            metadata = {"_kg_hide-input": True, "jupyter": {"source_hidden": True}}
        cells.append(nbformat.v4.new_code_cell(text.strip(), id=cell_id, metadata=metadata))
    python = {"display_name": "Python 3", "language": "python", "name": "python3"}
    made = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": python})
    nbformat.validate(made)
    return made


def with_settings(made: NotebookNode, settings: Mapping[str, Any]) -> NotebookNode:
    """`made` with a cell behind its settings that overrides them, as papermill has it. Raises KeyError for a name that
    is no setting."""
    at = next(i for i, cell in enumerate(made.cells) if "parameters" in cell.metadata.get("tags", ()))
    if unknown := [name for name in settings if not re.search(rf"\b{name}\b.*=", made.cells[at].source)]:
        raise KeyError(f"no setting is called {unknown[0]}")
    lines = "\n".join(f"{name} = {value!r}" for name, value in settings.items())
    cell = nbformat.v4.new_code_cell(lines, id="settings-here", metadata={"tags": ["injected-parameters"]})
    made.cells.insert(at + 1, cell)
    return made


def text_of(name: str) -> str:
    return nbformat.writes(notebook(name)) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a file differs")
    check = parser.parse_args().check
    for name in NAMES:
        path, text = FOLDER / f"{name}.ipynb", text_of(name)
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        if check:
            sys.exit(f"{path.name} is not what {name}.py gives: python -m notebooks.make")
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
