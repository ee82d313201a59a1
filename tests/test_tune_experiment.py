"""How the process that fine-tunes ends: a failure of its card is an outcome with its reason, never a traceback."""

import pytest
from helpers.tasks import made_tasks
from helpers.tuning import arms_of, spec_of

from harness.tune import decode


@pytest.mark.parametrize(
    ("problem", "status", "reason"),
    [
        (RuntimeError("CUDA error: out of memory"), "oom", "try a shorter --context or --precision int4"),
        (RuntimeError("CUDA error: device-side assert triggered"), "crashed", "the card was lost"),
        (RuntimeError("CUDA error: no kernel image is available for execution"), "crashed", "`harness doctor`"),
    ],
)
def test_an_arm_whose_card_fails_while_it_answers_is_a_row(tmp_path, arc_folder, monkeypatch, problem, status, reason):
    """Memory that one answer alone does not fit, or a lost card: the next arm is begun all the same."""
    tasks, solutions = made_tasks(2)
    spec = spec_of(arc_folder, tasks, steps=2)
    tries = []

    def fail(*_):
        tries.append(1)
        raise problem

    monkeypatch.setattr(decode.Queue, "run", fail)
    rows, notes = arms_of(spec, tasks, solutions, tmp_path, "baseline, n-1")
    assert [(row.arm, row.status) for row in rows] == [("baseline", status), ("n-1", status)]
    assert all(reason in row.reason for row in rows)
    assert len(tries) == (2 * 3 if status == "oom" else 2)  # with 4 rows, 2 and 1, or once
    assert any(f"baseline: {status}" in note for note in notes)
