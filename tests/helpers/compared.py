"""Records that compare takes, and the verb itself in this process, on a terminal of 80 columns."""

from collections.abc import Callable

import pytest
from helpers.records import cell, result, row

from harness.cli import app
from harness.records.arm import ROWS
from harness.records.store import Store


def record(folder, rows=(), results=()):
    for kind, made in ((None, rows), (ROWS, results)):
        store = Store(folder, **({"kind": kind} if kind else {}))
        for each in made:
            store.add(each)
    return folder


def runner(capsys, monkeypatch) -> Callable:
    """compare(*words) -> (exit code, the output in one line, the errors)."""
    monkeypatch.setenv("COLUMNS", "80")

    def compare(*words):
        with pytest.raises(SystemExit) as end:
            app.main(["compare", *map(str, words)])
        shown = capsys.readouterr()
        assert max(map(len, shown.out.splitlines()[2:]), default=0) <= 80
        return end.value.code or 0, " ".join(shown.out.split()), shown.err

    return compare


def made_pair(folder):
    """Three cells, of which B takes half the seconds of two; one fails in B, and one is in either only. An arm."""
    contexts = (512, 1024, 2048)
    a = [row((2.0,) * 12, cell=cell(context=context), versions={"torch": "2.6.0"}) for context in contexts]
    b = [row(cell=cell(context=context), versions={"torch": "2.14.1"}) for context in contexts[:2]]
    b.append(row(status="oom", reason="no", cell=cell(context=2048), versions={"torch": "2.14.1"}))
    losses = {"answer_losses": ((0.5, 12),) * 10}, {"answer_losses": ((0.2, 12),) * 10}
    return (
        record(folder / "a", [*a, row(cell=cell(precision="int4"))], [result(3, **losses[0])]),
        record(folder / "b", [*b, row(cell=cell(precision="int8"))], [result(8, **losses[1])]),
    )
