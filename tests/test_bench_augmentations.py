"""The table of augmentations: losses per task, paired with those of the arms beside them, and Holm over all p."""

import io
import random
import sys

import pytest
from helpers.records import result
from rich.console import Console

from bench import augmentations
from harness.analysis.retraining import NONE
from harness.arc import sources
from harness.errors import UserError
from harness.records.arm import ROWS
from harness.records.store import Store

TASKS = 30


def arm(name, gain=0.0, right=5):
    """Losses of 12 tokens per grid, lower by `gain` nats per grid than the others', with noise."""
    rng = random.Random(name)
    losses = tuple(((6 + i / 10 - gain + rng.gauss(0, 0.1)) / 12, 12) for i in range(TASKS))
    return result(right, tasks=TASKS, arm=name, answer_losses=losses)


def shown(arms):
    out = io.StringIO()
    augmentations.table(arms, NONE, Console(file=out, width=120, highlight=False))
    return out.getvalue()


def row_of(text, name, block, table):
    lines = [line for line in text.split("Against")[block].splitlines() if line.startswith(name + " ")]
    return lines[table].removeprefix(name).split()


def test_every_arm_is_beside_both_and_p_are_corrected_for_the_whole_table():
    """Of three arms three pairs are compared, each with two p: six in all. A loss lower by a nat everywhere has the
    least p there is, 1 / 20001, and Holm's is six times that."""
    text = shown([arm("baseline"), arm("+ color swap", gain=0.001), arm("+ tile", gain=1.0, right=11)])
    assert text.count("Against") == 2 and "Against baseline, 30 tasks:" in text
    before, after, difference, low, _, high, p, holm, tasks = row_of(text, "+ tile", 1, table=0)
    assert float(low) < float(difference) < float(high) < -0.8 and float(after) < float(before)
    assert (p, holm, tasks) == ("<.001", "<.001", "30")
    # Six more, none less: 2 / 2**6; and four of the six p are as large.
    _, solved, *_, p, holm, more = row_of(text, "+ tile", 1, table=1)
    assert (solved, p, holm) == ("11", "0.031", "0.12") and int(more) > 30
    assert abs(float(row_of(text, "+ color swap", 1, table=0)[2])) < 0.1
    assert row_of(text, "+ color swap", 1, table=1)[-3:] == ["1", "1", "-"]
    # No pair stands twice.
    assert "+ tile" in text.split("Against")[2] and "baseline" not in text.split("Against")[2]


def test_outputs_that_were_too_long_to_read_are_named():
    short = result(1, tasks=2, arm="baseline", answer_losses=((1.0, 10),), answer_counts=(1, 0))
    with pytest.raises(UserError, match="baseline: 1 tasks over 1024 tokens; ask for a longer context"):
        shown([short])


def test_the_table_is_of_the_recorded_rows_of_these_settings(tmp_path, monkeypatch, capsys):
    """Rows of another number of steps are left out, but the baseline has none."""
    command = ["augmentations", "--only-table", "--tasks", "30", "--steps", "64", "--results", str(tmp_path / "rows")]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit, match=r"no row of baseline or \+ color swap at these settings yet"):
        augmentations.main()
    config = augmentations.configure(
        "arc-tiny", **augmentations.SETTINGS["generated"] | {"tasks": 30, "steps": 64}, arms="all",
        results=tmp_path / "rows", views=2,
    )  # fmt: skip
    own = {name: getattr(config, name) for name in ("model", "weights", "dataset", "recipe", "context")}
    store, ids = Store(tmp_path / "rows", kind=ROWS), [task.id for task in config.tasks]
    for name, steps in (("baseline", 8), ("+ tile", 64), ("+ pad", 8)):
        made = result(3, tasks=30, steps=steps, arm=name, answer_losses=((0.5, 12),) * 30, **own)
        scores = [score.__class__(id, *(score.attempts,) * 5) for score, id in zip(made.scores, ids, strict=True)]
        spec = made.spec.__class__(**{**vars(made.spec), "tasks": tuple(ids)})
        store.add(made.__class__(**{**vars(made), "spec": spec, "scores": tuple(scores)}))
    augmentations.main()
    text = capsys.readouterr().out
    assert "Against baseline, 30 tasks:" in text and "+ tile" in text
    assert "+ pad" not in text and "Against + color swap" not in text


def test_the_sets_are_there():
    """120 generated tasks; 257 of ARC within the model's own limit."""
    sizes = {}
    for name, settings in augmentations.SETTINGS.items():
        config = augmentations.configure("arc-tiny", **settings)
        sizes[name] = len(config.tasks)
        assert all(len(config.solutions[task.id]) == len(task.test_inputs) for task in config.tasks)
    assert sizes == {"generated": 120, "small": 257}
    assert len(sources.load("generated")[0]) == 120
