"""The verb: arms, record, curve, and what it refuses."""

import json

import pytest
from helpers.tasks import made_tasks, write_tasks

from harness.arc import arms
from harness.cli import app
from harness.records import arm
from harness.tune import runner


@pytest.fixture
def set_of_tasks(tmp_path):
    return write_tasks(tmp_path / "tasks", *made_tasks(4))


def _ttft(folder, set_of_tasks, *words):
    common = ["--set", str(set_of_tasks), "--device", "cpu", "--results", str(set_of_tasks.parent / "results")]
    with pytest.raises(SystemExit) as end:
        app.main(
            [
                "ttft",
                str(folder),
                *common,
                "--context",
                "1024",
                *(() if "--steps" in words else ("--steps", "2")),
                *words,
            ]
        )
    return end.value.code


def test_all_arms_give_the_table_and_are_not_run_twice(weights_folder, set_of_tasks, capsys):
    assert not _ttft(weights_folder, set_of_tasks, "--tasks", "3")
    out = capsys.readouterr().out
    table = out[out.index("arm ") : out.index("Record and page")]  # whose path may be long
    for name in arms.TABLE:
        assert f"\n{name} " in table
    assert max(map(len, table.splitlines())) <= 80
    assert "Best arm: " in out
    path = set_of_tasks.parent / "results" / "accuracy.jsonl"
    rows = [arm.from_json(json.loads(line)) for line in path.read_text().splitlines()]
    assert [row.steps for row in rows] == [0, 2, 2, 2, 2, 2]
    assert len({row.spec.tasks for row in rows}) == 1
    assert [json.loads(json.dumps(arm.to_json(row))) for row in rows] == [
        json.loads(line) for line in path.read_text().splitlines()
    ]
    counts = rows[0].answer_losses
    assert rows[0].token_loss == pytest.approx(sum(n * c for n, c in counts) / sum(c for _, c in counts))
    before = path.read_bytes()
    assert not _ttft(weights_folder, set_of_tasks, "--tasks", "3", "--arms", "baseline, n-2")
    assert capsys.readouterr().out.count("from the record") == 2
    assert path.read_bytes() == before


def test_a_curve_is_evaluated_on_the_way_and_projected(weights_folder, set_of_tasks, capsys):
    words = ["--tasks", "3", "--arms", "baseline, n-1", "--steps", "8", "--learning-rate", "1e-3"]
    assert not _ttft(weights_folder, set_of_tasks, *words, "--project-to", "32")
    out = " ".join(capsys.readouterr().out.split())
    assert "n-1: measured 0.0 % at 8 steps; projected to 32 steps: 0 to" in out
    assert "x4.0 beyond the last checkpoint" in out
    path = set_of_tasks.parent / "results" / "accuracy.jsonl"
    base, tuned = (arm.from_json(json.loads(line)) for line in path.read_text().splitlines())
    assert [c.steps for c in tuned.curve_points] == [1, 2, 4, 8]
    assert tuned.curve_points[-1].loss == pytest.approx(tuned.token_loss)
    assert tuned.curve_points[-1].loss < tuned.curve_points[0].loss <= base.token_loss + 1e-6
    assert not _ttft(weights_folder, set_of_tasks, *words, "--project-to", "80")
    assert "no projection to 80: x10.0 beyond" in " ".join(capsys.readouterr().out.split())


def test_halving():
    assert runner.eval_steps(125) == [7, 15, 31, 62, 125]
    assert runner.eval_steps(2) == [1, 2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--arms", "none"], "unknown arm"),
        (["--encoding", "words"], "unknown encoding"),
        (["--tasks", "0"], "--tasks must be a whole number from 1 to"),
        (["--views", "0"], "--views must be a whole number from 1 to"),
        (["--context", "9999"], "beyond the window"),
        (["--learning-rate", "-1"], "--learning-rate must be a number above 0"),
        (["--weights", "random"], "no weights: accuracy not measured"),
        (["--precision", "int5"], "unknown precision"),
    ],
)
def test_bad_input_is_one_line(weights_folder, set_of_tasks, capsys, words, message):
    assert _ttft(weights_folder, set_of_tasks, *words) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_a_model_of_the_list_without_weights_says_how_to_give_them(set_of_tasks, capsys, monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "none"))
    assert _ttft("qwen-0.5b", set_of_tasks) == 2
    assert "no weights: accuracy not measured; give them with --weights PATH" in capsys.readouterr().err


def test_tasks_without_solutions_cannot_be_scored(weights_folder, set_of_tasks, capsys):
    for path in set_of_tasks.glob("*.json"):
        content = json.loads(path.read_text())
        del content["test"][0]["output"]
        path.write_text(json.dumps(content))
    assert _ttft(weights_folder, set_of_tasks) == 2
    assert "no task has its solution" in capsys.readouterr().err
