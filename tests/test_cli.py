"""The command line: bad input is one line and exit code 2, and what needs no torch does not import it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.records import curve, result, row

from harness.cli import app
from harness.records.arm import ROWS
from harness.records.store import Store

ROOT = Path(__file__).parents[1]


def _fails(capsys, *words):
    with pytest.raises(SystemExit) as end:
        app.main(list(words))
    assert end.value.code == 2
    err = capsys.readouterr().err
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("error: ")
    return err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bench", "qwn-0.5b"], "did you mean qwen-0.5b"),
        (["bench", "q" * 5000], "no model, file or folder has such a name"),
        (["bench", "--precisions", "fp17"], "unknown precision 'fp17'"),
        (["bench", "--contexts", "0"], "context '0'"),
        (["bench", "--contexts", "-5"], "context '-5'"),
        (["bench", "--contexts", "many"], "context 'many'"),
        (["bench", "--contexts", "99999999999"], "context"),
        (["bench", "--budget-hours", "-1"], "--budget-hours must be a number above 0"),
        (["bench", "--budget-hours", "0"], "--budget-hours must be a number above 0"),
        (["bench", "--budget-hours", "nan"], "--budget-hours must be a number above 0"),
        (["bench", "--steps", "0"], "--steps must be a whole number from 1 to"),
        (["bench", "--sample-seconds", "0"], "--sample-seconds must be a number above 0"),
        (["bench", "--models-file", "none.yaml"], "cannot be read"),
        (["bench", "--weights", "nowhere"], "none of auto"),
        (["bench", "phi-2", "phi-1.5", "--weights", "."], "2 models are named"),
        (["bench", "phi-2", "--contexts", "4096", "--device", "cpu"], "beyond the window"),
        (["bench", "--device", "tpu"], "unknown device"),
        (["bench", "--recipe", "referense"], "did you mean reference"),
        (["ttft", "--lora-targets", "all"], "unknown LoRA target"),
        (["ttft", "--sequences-per-step", "0"], "--sequences-per-step must be a whole number from 1 to"),
        (["bench", "--device", "cuda:99"], "--device"),
        (["report", "--results", "nowhere"], "cannot be read"),
        (["report", "--budget-hours", "-3"], "--budget-hours"),
        (["plan", "--contexts", "x"], "context 'x'"),
        (["plan", "--device", "tpu"], "unknown device"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words, message, capsys, tmp_path):
    if words[0] == "bench":
        words = [*words, "--results", str(tmp_path / "results")]
    assert message in _fails(capsys, *words)


def test_a_results_folder_that_cannot_be_written(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in _fails(capsys, "bench", "--device", "cpu", "--results", str(tmp_path / "file"))


def test_a_hub_id_that_cannot_be_had(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert "nobody/nothing: not in the hub's cache" in _fails(capsys, "bench", "nobody/nothing")


NO_TORCH = """
import sys
from harness import cli
try:
    cli.main({words!r})
except SystemExit as end:
    assert not end.code, end.code
for heavy in ("torch", "transformers", "peft", "bitsandbytes", "huggingface_hub"):
    assert heavy not in sys.modules, heavy
"""


@pytest.mark.parametrize(
    "words",
    [["--help"], ["bench", "--help"], ["ttft", "--help"], ["models"], ["plan", "arc-tiny"],
     ["plan", "./bare", "--window", "64", "--precisions", "fp32"],
     ["plan", "./bare", "--precisions", "fp32"], ["report"], ["pick"]],
)  # fmt: skip
def test_what_needs_no_torch_does_not_import_it(words, tmp_path):
    """The record has accuracies too, with a curve to project from: neither do they need torch."""
    (tmp_path / "bare").mkdir()
    # Its window is asked of another process, and two layers are traced sooner than 32.
    (tmp_path / "bare" / "config.json").write_text('{"model_type": "llama", "num_hidden_layers": 2}')
    Store(tmp_path / "results" / "a-cpu").add(row())
    Store(tmp_path / "results" / "a-cpu", kind=ROWS).add(result(5, curve_points=curve(10, 2, 3, 4, 5)))
    done = subprocess.run(
        [sys.executable, "-c", NO_TORCH.format(words=words)],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "COLUMNS": "80", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_report_judges_by_another_budget_and_writes_the_csv(tmp_path, capsys):
    store = Store(tmp_path / "a-cpu")
    store.add(row())  # 4.4 h for 1000 steps
    for hours, word in (("12", "fits"), ("3", "too slow")):
        with pytest.raises(SystemExit):
            app.main(
                ["report", "--results", str(store.folder), "--budget-hours", hours, "--csv", str(tmp_path / "x.csv")]
            )
        assert word in capsys.readouterr().out
        assert f",{word}," in (tmp_path / "x.csv").read_text()


def test_report_leaves_corrupt_lines_out_and_says_so(tmp_path, capsys):
    store = Store(tmp_path)
    store.add(row())
    with store.path.open("a") as f:
        f.write("half a li\n")
    with pytest.raises(SystemExit):
        app.main(["report", "--results", str(tmp_path)])
    assert "1 corrupt lines were left out" in capsys.readouterr().err


def test_every_verb_has_an_example():
    from typer.main import get_command

    for name, verb in get_command(app.app).commands.items():
        assert f"harness {name}" in verb.help, name


@pytest.mark.parametrize(
    "verb", ["bench", "ttft", "plan", "report", "pick", "models", "doctor", "predict", "calibrate"]
)
def test_make_passes_on_every_variable_that_a_verb_takes(verb):
    from typer.main import get_command

    variables = (
        "CONTEXTS",
        "PRECISIONS",
        "MODELS_FILE",
        "DEVICE",
        "BUDGET_HOURS",
        "STEPS",
        "RESULTS",
        "WEIGHTS",
        "GPU",
    )
    options = {option for p in get_command(app.app).commands[verb].params for option in p.opts}
    make = ["make", "-n", "-o", ".venv/.ready", verb, *(f"{name}=of {name}" for name in variables)]
    done = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    for name in variables:
        option = f"--{name.lower().replace('_', '-')}"
        assert (f'{option} "of {name}"' in done.stdout) == (option in options), option


def test_a_machine_without_torch_is_told_what_to_install(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('No module named torch')")
    done = subprocess.run(
        [sys.executable, "-m", "harness", "bench", "--results", str(tmp_path / "results")],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path), "TMPDIR": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "error: No module named torch; install what is missing: pip install ." in done.stderr
    assert "Traceback" not in done.stderr


def test_versions_that_were_not_tested_are_named():
    from harness.measure.doctor import tested_versions, untested

    tested = tested_versions()
    assert {"torch", "transformers", "peft", "bitsandbytes"} <= tested.keys()
    assert untested({"torch": f"{tested['torch']}+cpu", "transformers": tested["transformers"], "peft": "0.21.0"}) == []
    (line,) = untested({"transformers": "4.57.1"})
    assert "transformers 4.57.1 was not tested" in line
    assert len(untested({"peft": "0.17.0"})) == 1


def test_two_models_of_one_name_get_two(tmp_path, tiny_folder, capsys):
    for side in "ab":
        (tmp_path / side / "same").mkdir(parents=True)
        config = (tiny_folder / "config.json").read_text()
        (tmp_path / side / "same" / "config.json").write_text(config)
    a, b = (str(tmp_path / side / "same") for side in "ab")
    with pytest.raises(SystemExit) as end:
        app.main(["plan", a, b])
    shown = capsys.readouterr()
    assert not end.value.code and all(name in shown.out for name in ("a-same", "b-same"))
    assert "is called a-same, for another one is same too" in shown.err
    with pytest.raises(SystemExit) as end:
        app.main(["plan", a, a, "qwen-0.5b", "qwen2.5-0.5b"])
    assert not end.value.code
    assert capsys.readouterr().out.count("qwen2.5-0.5b") == 1


def test_every_option_stands_under_a_heading():
    import typer

    from harness.cli.app import app
    from harness.cli.options import PANELS

    verbs = typer.main.get_command(app).commands.values()
    options = {p.name for verb in verbs for p in verb.params if p.param_type_name == "option" and not p.hidden}
    names = [name for panel in PANELS.values() for name in panel]
    assert sorted(names) == sorted(options | {"help"})


def test_help_says_of_every_verb_what_the_readme_says(capsys):
    """In whole sentences, at any width."""
    with pytest.raises(SystemExit):
        app.main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    rows = re.findall(
        r"^\| `([a-z-]+)` \| (.+) \|$",
        (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert len(rows) == len(app.app.registered_commands)
    for verb, sentence in rows:
        assert f" {verb} {sentence}" in shown


def test_help_names_everything_once_and_says_what_goes_with_tasks_alone(capsys):
    from typer.main import get_command

    verbs = get_command(app.app).commands
    for name in verbs:
        with pytest.raises(SystemExit):
            app.main([name, "--help"])
        lines = capsys.readouterr().out.splitlines()
        named = [line.split()[0] for line in lines if line.startswith("  ") and "<" in line[:20] and line[2] != " "]
        assert len(named) == len(set(named)), name
    for option in verbs["plan"].params:
        with pytest.raises(SystemExit) as end:
            app.main(["plan", "arc-tiny", option.opts[0], "1"])
        # Refused at once: nothing else of it is looked at.
        if "goes with --tasks" in capsys.readouterr().err:
            assert end.value.code == 2 and option.help.startswith("With --tasks: "), option.name
    # A verb that reads a record reads the newest one.
    for name in ("report", "pick", "calibrate"):
        (results,) = (option for option in verbs[name].params if option.name == "results")
        assert "by default the newest" in results.help


def test_only_a_verb_with_a_record_says_that_it_goes_on():
    assert app.interrupted(["solve", "arc-tiny"]) == (
        "interrupted; every finished task is in the record: run the same command to go on"
    )
    assert "every finished cell" in app.interrupted(["bench"]) and "every finished arm" in app.interrupted(["ttft"])
    assert app.interrupted(["predict", "--gpu", "t4"]) == app.interrupted([]) == "interrupted"
