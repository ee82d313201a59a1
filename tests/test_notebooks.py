"""The notebooks: made of their sources, run whole by a kernel on a CPU, and every way of finding the harness."""

import json
import subprocess
import sys

import nbclient
import pytest
from helpers.tasks import made_tasks

import harness
from harness import kaggle
from harness.arc.sources import load
from harness.report import plots
from harness.solve import submission
from notebooks import make
from notebooks.install import install

# Least work of every part; nothing is left out.
QUICK = {"CONTEXTS": [256], "PRECISIONS": ["native"]}


def run(name, folder, settings):
    """The notebook after it has run in `folder`; raises for a cell that fails."""
    made = make.with_settings(make.notebook(name), settings)
    nbclient.NotebookClient(made, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    return made


def shown(cell):
    """All text that a cell printed or displayed."""
    outputs = cell.get("outputs", ())
    return "".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs)


def pictures(made):
    return [o for cell in made.cells for o in cell.get("outputs", ()) if "image/png" in o.get("data", {})]


@pytest.mark.timeout(900)  # a machine that others use
def test_kaggle_from_an_empty_kernel_to_a_valid_submission(tmp_path):
    tasks = made_tasks(2)[0]
    inputs, working = tmp_path / "input" / "arc-prize-2025", tmp_path / "working"
    inputs.mkdir(parents=True)
    working.mkdir()
    pairs = {t.id: [{"input": p.input, "output": p.output} for p in t.demonstrations] for t in tasks}
    raw = {t.id: {"train": pairs[t.id], "test": [{"input": grid} for grid in t.test_inputs]} for t in tasks}
    (inputs / "arc-agi_test_challenges.json").write_text(json.dumps(raw))
    made = run(
        "kaggle",
        tmp_path,
        QUICK
        | {
            "INPUT": str(tmp_path / "input"),
            "WORKING": str(working),
            "BENCH": {"sample_seconds": 1, "force": True, "kernels": "plain"},
            "SOLVE": {"sequences_per_step": 1, "kernels": "plain", "passes": 1, "workers": 1},
            "REHEARSAL_HOURS": 0.2,
            "STEPS": 1,
            "VIEWS": 1,
            "KAGGLE_CARDS": "t4",
        },
    )
    printed = [text for cell in made.cells if (text := shown(cell))]
    # The verdict is a sentence before the first table.
    verdict = next(i for i, text in enumerate(printed) if text.startswith("Best candidate: arc-tiny"))
    assert "predicted_peak_gib" in printed[verdict + 1] and " fits" in printed[verdict + 1]
    assert len(pictures(made)) == 1 and any("Choose arc-tiny fp16" in text for text in printed)
    raw = json.loads((working / "submission.json").read_text())
    assert submission.faults(raw, load(str(inputs / "arc-agi_test_challenges.json"))[0]) == []
    assert "submission.json is valid: 2 tasks" in printed[-1]
    assert (working / "results/notebook/records.jsonl").exists()
    assert not any("\x1b" in text for text in printed)
    # Kaggle's inputs can only be read.
    assert [path.name for path in inputs.parent.rglob("*") if path.is_file()] == ["arc-agi_test_challenges.json"]


def test_choose_ends_with_what_to_take(tmp_path):
    made = run("choose", make.FOLDER, QUICK | {"MODELS": ["arc-tiny"], "CARDS": "t4", "PRECISIONS": ["fp16"]})
    printed = [text for cell in made.cells if (text := shown(cell))]
    assert printed[-1].startswith("Choose arc-tiny fp16 at 256 tokens on one t4")
    assert len(pictures(made)) == 1
    assert any("steps_per_minute" in text and "qwen2.5-0.5b" in text for text in printed)


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [((None, None), (48, 16)), ((8, None), (8, 16)), ((None, 2), (48, 2)), ((8, 2), (8, 2))],
)
def test_what_was_picked_holds_unless_a_setting_says_otherwise(monkeypatch, tmp_path, settings, wanted):
    """The cell that solves, alone: steps and views of the pick, of which each setting replaces its own."""
    (source,) = (cell.source for cell in make.notebook("kaggle").cells if "harness.solve(" in cell.source)
    calls = []

    class Solved:
        summary = "done"

    monkeypatch.setattr(harness, "solve", lambda **options: calls.append(options) or Solved)
    here = kaggle.Here(folder=tmp_path, tasks=tmp_path, models=(), scored=False, notes=())
    record = type("Record", (), {"pick": {"model": "picked", "steps": 48, "views": 16}})
    names = {"STEPS": settings[0], "VIEWS": settings[1], "SOLVE": {}, "BUDGET_HOURS": 1, "REHEARSAL_HOURS": 0.1}
    exec(source, names | {"harness": harness, "kaggle": kaggle, "here": here, "record": record, "started": 0.0})
    (options,) = calls
    assert (options["model"], options["steps"], options["views"]) == ("picked", *wanted)


@pytest.mark.parametrize(("answered", "asked"), [(True, ["picked"]), (False, ["picked", "arc-tiny"])])
def test_another_model_stands_in_only_where_nothing_is_answered(tmp_path, answered, asked):
    """A run that ends with an error after hours: another would write over its answers. One that takes over has what is
    left of the hours, not all of them again."""
    (source,) = (cell.source for cell in make.notebook("kaggle").cells if "harness.solve(" in cell.source)
    tasks, calls, clock, file = made_tasks(2)[0], [], [0.0], tmp_path / "c.json"
    pairs = {task.id: [{"input": task.test_inputs[0], "output": task.test_inputs[0]}] for task in tasks}
    file.write_text(json.dumps({name: {"train": own, "test": own} for name, own in pairs.items()}))
    here = kaggle.Here(folder=tmp_path, tasks=file, models=(), scored=True, notes=())

    def solve(**options):
        calls.append(options)
        clock[0] += 1800.0
        if answered:
            submission.write(here.submission, tasks, {tasks[0].id: (("1",),)})
        raise harness.UserError("the disk is full")

    world = type("Harness", (), {"solve": staticmethod(solve), "UserError": harness.UserError})
    names = {"STEPS": None, "VIEWS": None, "SOLVE": {}, "BUDGET_HOURS": 2, "REHEARSAL_HOURS": 0.1, "started": 0.0}
    names["record"] = type("Record", (), {"pick": {"model": "picked"}})
    names["time"] = type("Time", (), {"time": staticmethod(lambda: clock[0])})
    exec(source, names | {"harness": world, "kaggle": kaggle, "here": here})
    assert [options["model"] for options in calls] == asked
    assert [options["budget_hours"] for options in calls] == [2.0, 1.5][: len(asked)]


# ---- How they are made


@pytest.mark.parametrize("name", make.NAMES)
def test_a_notebook_is_what_its_source_gives(name):
    text = (make.FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    assert text == make.text_of(name), "python -m notebooks.make"
    cells = json.loads(text)["cells"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code")
    assert cells[0]["cell_type"] == "markdown"
    assert [cell["metadata"].get("tags") for cell in cells].count(["parameters"]) == 1


def test_kaggle_is_read_in_a_minute_to_the_verdict():
    cells = make.notebook("kaggle").cells
    before = cells[: next(i for i, cell in enumerate(cells) if "record.verdict" in cell.source)]
    words = [word for cell in before if cell.cell_type == "markdown" for word in cell.source.split()]
    assert len(words) < 240  # of plain English, per minute


def test_a_setting_that_there_is_not_is_refused():
    with pytest.raises(KeyError, match="MODLES"):
        make.with_settings(make.notebook("choose"), {"MODLES": []})


# ---- How the harness is found


def test_a_harness_that_is_there_is_left_alone(tmp_path):
    assert "nothing is installed" in install(str(tmp_path))


@pytest.fixture
def without_harness(monkeypatch, tmp_path):
    """A kernel that cannot import the harness, in a folder without a checkout above it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", "")


def test_wheels_are_installed_without_an_index(without_harness, monkeypatch, tmp_path):
    (tmp_path / "data/wheels").mkdir(parents=True)
    (tmp_path / "data/wheels/ttft_bench-0.1.0-py3-none-any.whl").touch()
    commands = []
    done = subprocess.CompletedProcess([], 0, "", "")
    monkeypatch.setattr(subprocess, "run", lambda command, **options: commands.append(command) or done)
    assert "without an index" in install(str(tmp_path))
    assert commands[0][4:] == ["-q", "--no-index", "--find-links", str(tmp_path / "data/wheels"), "ttft-bench"]
    (tmp_path / "data/wheels/gguf-0.19.0-py3-none-any.whl").touch()
    install(str(tmp_path))
    assert commands[1][-1] == "ttft-bench[gguf]"


def test_wheels_that_cannot_be_installed_end_it_in_a_sentence(without_harness, monkeypatch, tmp_path):
    (tmp_path / "ttft_bench-0.1.0-py3-none-any.whl").touch()
    done = subprocess.CompletedProcess(
        [], 1, "", "WARNING: old pip\nERROR: No matching distribution found for torch>=2.6\n"
    )
    monkeypatch.setattr(subprocess, "run", lambda command, **options: done)
    with pytest.raises(SystemExit, match="cannot be installed: ERROR: No matching"):
        install(str(tmp_path))


def test_an_attached_checkout_is_used(without_harness, tmp_path):
    (tmp_path / "code/harness").mkdir(parents=True)
    (tmp_path / "code/harness/api.py").touch()
    assert str(tmp_path / "code") in install(str(tmp_path))
    assert sys.path[0] == str(tmp_path / "code")


def test_without_any_harness_it_ends_in_a_sentence(without_harness, tmp_path):
    with pytest.raises(SystemExit, match="attach the folder that `make wheels` made"):
        install(str(tmp_path))


# ---- What a notebook needs of the package


def test_verbs_are_called_after_their_packages_were_imported():
    import harness.predict.choice
    import harness.solve.run

    for verb, wrong in ((harness.predict, {"gpu": "no-card"}), (harness.solve, {"tasks": "nowhere"})):
        with pytest.raises(harness.UserError):
            verb("arc-tiny", **wrong)


def test_a_users_error_is_one_line_in_a_notebook():
    assert harness.UserError("no such model")._render_traceback_() == ["error: no such model"]


def test_a_record_says_what_to_take_and_with_which_options():
    record = harness.load(str(make.FOLDER.parent / "results/reference/make-bench-qwen-0.5b"))
    assert record.verdict.startswith("Best candidate: qwen2.5-0.5b bf16 at 512 tokens")
    assert record.pick == {"model": "qwen2.5-0.5b", "precision": "bf16", "context": 512}
    # Under a budget that none fits it is the nearest.
    assert harness.load(record.folder, budget_hours=0.1).pick["model"] == "qwen2.5-0.5b"


def test_a_dollar_in_a_name_is_a_dollar(monkeypatch, tmp_path):
    """matplotlib would read a formula between two of them, and refuse a wrong one."""
    monkeypatch.setenv("MPLBACKEND", "agg")
    frame = harness.load(str(make.FOLDER.parent / "results/reference/make-bench-qwen-0.5b")).frame
    plots.measured(frame.assign(model=r"$\frac{1}$"), 12).savefig(tmp_path / "measured.png")
    ends = {name: [2.0] for name in ("peak_gib", "hours_low", "hours_mid", "hours_high")}
    frame = frame.head(1)[["model"]].assign(model=r"$\frac{1}$", card=r"$\x$", **ends)
    plots.predicted(frame, 12).savefig(tmp_path / "predicted.png")


def test_a_records_plot_has_a_bar_per_cell_and_both_limits(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    record = harness.load(str(make.FOLDER.parent / "results/reference/make-bench-qwen-0.5b"), budget_hours=7)
    memory, hours = record.plot().axes
    assert [label.get_text() for label in memory.get_yticklabels()][-1] == "qwen2.5-0.5b int4 512"
    # What was not measured has no bar.
    assert [bar.get_width() for bar in hours.patches][2:] == list(record.frame["run_hours_mid"])[2:]
    assert len(hours.patches) == len(record.rows) == 6
    assert [line.get_xdata()[0] for line in hours.lines if len(set(line.get_xdata())) == 1][-1] == 7
