"""The documents against the program: command lines, help texts, quoted output, links."""

import ast
import inspect
import re
import shlex
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.main import get_command

import harness
from harness.arc.arms import ARMS
from harness.catalog.accelerators import ACCELERATORS
from harness.catalog.kernels import KERNELS
from harness.cli import app, bench, predict, ttft
from harness.records.measurement import FAILURES, OK
from harness.report import frame
from harness.workers.look import look
from harness.workers.serve import job_named

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for pattern in (
        "*.md",
        "docs/*.md",
        "bench/README.md",
        "harness/**/README.md",
        "results/README.md",
        "results/reference/**/*.md",
    )
    for path in ROOT.glob(pattern)
)
VERBS = get_command(app.app).commands
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = {name for line in re.findall(r"^([a-z][a-z -]*):", MAKEFILE, re.M) for name in line.split()}
# Targets whose ARGS are another program's.
SCRIPTS = {
    "backtest": "bench/backtest.py",
    "backtest-projection": "bench/backtest_projection.py",
    "backtest-accuracy": "bench/backtest_accuracy.py",
    "tiny": "harness/tiny/pretrain.py",
}


# ---- What a document quotes


def lines_of(text):
    """The command lines of the shell blocks in `text`, those over several lines joined."""
    for block in re.findall(r"^ *```sh\n(.*?)^ *```", text, re.M | re.S):
        yield from (line.strip() for line in block.replace("\\\n", " ").splitlines() if line.strip())


def spans_of(text):
    """The code spans of `text`, outside its blocks."""
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


def words_of(line):
    return [re.sub(r"^N$", "1", word) for word in shlex.split(line, comments=True)]


# ---- What the program takes


def options_of(verb):
    """All names of the verb's options, hidden ones too."""
    names = {name for option in VERBS[verb].params for name in (*option.opts, *option.secondary_opts)}
    return {name for name in names if name.startswith("--")} | {"--help"}


def script_options(path):
    """Names of the options that a script's own parser has."""
    return set(re.findall(r'"(--[a-z-]+)"', (ROOT / path).read_text(encoding="utf-8"))) | {"--help"}


ANY_OPTION = {name for verb in VERBS for name in options_of(verb)}
ANY_OPTION |= {name for path in ROOT.glob("bench/*.py") for name in script_options(path)}


def long_options(words):
    return {word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)}


def check_verb(words, whole):
    """`words` after "harness": a verb with options that exist; a whole line must be parsed to its end."""
    if words[0] == "VERB":
        return
    assert words[0] in VERBS, words
    assert long_options(words) <= options_of(words[0]), words
    if whole and "--help" not in words:
        VERBS[words[0]].make_context(words[0], list(words[1:]))


def check_make(words, whole):
    """`words` after "make": targets and variables that the Makefile has, and ARGS that their program takes."""
    values = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    targets = [name for word in words if not re.match(r"[A-Z_]+=", word) for name in word.split("|")]
    assert set(targets) <= TARGETS, words
    assert all(f"$({name})" in MAKEFILE for name in values), words
    arguments = shlex.split(values.get("ARGS", ""))
    for target in targets:
        if target in VERBS:
            check_verb([target, *arguments], whole and values.get("ARGS") != "...")
        elif target in SCRIPTS:
            assert long_options(arguments) <= script_options(SCRIPTS[target]), words


def check(text, whole):
    """A quoted command, if `text` is one of ours; `whole` where it is a line of a shell block."""
    if not re.match(r"(python -m |harness |ttft-bench |make |--)|[a-z]+ --", text):
        return
    words = words_of(text)
    if words[:3] == ["python", "-m", "harness"]:
        check_verb(words[3:], whole)
    elif words[0] in ("harness", "ttft-bench"):
        check_verb(words[1:], whole)
    elif words[0] == "make":
        check_make(words[1:], whole)
    elif words[:2] == ["python", "-m"] and words[2].startswith("bench."):
        path = words[2].replace(".", "/") + ".py"
        assert (ROOT / path).exists(), text
        assert long_options(words) <= script_options(path), text
    elif words[:2] == ["python", "-m"] and words[2].startswith("harness."):
        assert (ROOT / (words[2].replace(".", "/") + ".py")).exists(), text
    elif words[0].startswith("--"):
        assert long_options(words) <= ANY_OPTION | {"--"}, text
    elif words[0] in VERBS:
        check_verb(words, whole)


# ---- Commands


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_commands_exist(path):
    text = (ROOT / path).read_text(encoding="utf-8")
    for line in lines_of(text):
        check(line, whole=True)
    for span in spans_of(text):
        check(span, whole=False)


def test_a_wrong_command_is_noticed():
    for line in (
        "harness measure",
        "harness bench --gpu t4",
        "make bunch",
        'make pick ARGS="--csv x"',
        "make bench GPU",
    ):
        with pytest.raises(AssertionError):
            check(line, whole=True)
    with pytest.raises(Exception, match="valid int"):
        check("harness pick --steps one", whole=True)


# The command lines that the README showed before options were renamed (8bb5a17), those of its prose joined.
OLDER = """
make bench
make test
make lint test
make models
make doctor
make calibrate
make backtest
make backtest-projection
make benchmarks
make benchmarks ARGS=bench/bench_startup.py
make bench MODEL=qwen-0.5b
make bench MODEL="qwen-0.5b smollm2-135m" CONTEXTS="1024 4096" PRECISIONS="fp16 int4" BUDGET_HOURS=12
make bench MODEL=qwen-0.5b DEVICE=cuda:1 WEIGHTS=hub RESULTS=here STEPS=500 ARGS="--fresh"
make plan MODEL=qwen-0.5b
make report BUDGET_HOURS=9
make pick BUDGET_HOURS=9
make ttft
make ttft MODEL=./my-model
make ttft MODEL=./my-model ARGS="--tasks 20 --steps 128 --views 8"
make ttft ARGS="--set generated --tasks 120 --views 8"
make ttft ARGS="--tasks 300 --views 8"
make ttft ARGS='--tasks 257 --arms "baseline, + color swap" --scope task --steps 24 --lora-targets all-linear'
make ttft ARGS="--sequences-per-step 4 --learning-rate 4e-3"
make predict MODEL=phi-3-mini PRECISIONS=int4 CONTEXTS=4096 GPU=t4
make backtest-accuracy ARGS="--set generated"
python -m bench.bench_overhead
python -m bench.bench_build
python -m bench.peers --per-step 1
python -m bench.peers --model smollm2-135m --precision int4 --arc 2048 --per-step 2 --checkpointing all
python -m harness bench qwen-0.5b smollm2-135m --contexts "1024 4096" --precisions "fp16 int4" --budget-hours 12
python -m harness predict --model phi-3-mini --precision int4 --context 4096 --gpu t4
python -m harness predict qwen-0.5b qwen-1.5b --precision "fp16 int4" --context "2048 4096" --gpu "2xt4"
python -m harness predict qwen2.5-3b --precision int4 --gpu l4 --max-context
python -m harness predict qwen2.5-3b --precision int4 --gpu l4 --max-batch
python -m harness coverage arc1-evaluation
harness bench qwen-0.5b --precisions bf16 --contexts 1024
harness bench --fit --trim-vocab --gpus 2 --recipe reference --kernels plain --steps 1000 --retry
harness ttft --fit --trim-vocab --gpus 2 --kernels attention=sdpa --set arc1-evaluation --scope shared
harness ttft --precision int4 --grid-limit 10 --context 512 --too-long drop --show 3 --pictures 3 --project-to 1000
harness predict --split data --method dora --recipe arc24
harness plan --gpu t4
harness doctor
""".strip().splitlines()


@pytest.mark.parametrize("line", OLDER)
def test_older_command_lines_are_still_taken(line):
    check(line, whole=True)


# ---- Texts


def test_the_table_of_verbs_has_the_real_help_lines():
    rows = dict(re.findall(r"^\| `([a-z]+)` \| (.+) \|$", README, re.M))
    assert rows == {name: " ".join(verb.help.split("\n\n")[0].split()) for name, verb in VERBS.items()}


def test_the_readmes_table_is_what_report_prints(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    with pytest.raises(SystemExit) as end:
        app.main(["report", "--results", str(ROOT / "results/reference/make-bench-qwen-0.5b")])
    assert not end.value.code
    printed = "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())
    block = re.search(r"^```\n(.*?)^```", README, re.M | re.S)[1]
    table, best = block.strip("\n").split("\n\n")
    assert best.startswith("Best candidate")
    assert table in printed
    assert best in printed


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 170


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_links_resolve(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", (ROOT / path).read_text(encoding="utf-8")):
        if "://" not in target:
            assert (ROOT / path).parent.joinpath(target.partition("#")[0]).exists(), target


def test_every_column_of_the_csv_is_explained():
    text = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    assert [name for name in frame.COLUMNS if f"`{name}`" not in text] == []


def test_every_package_is_in_the_tree_of_the_code():
    text = (ROOT / "harness" / "README.md").read_text(encoding="utf-8")
    tree = text.split("## Tree")[1].split("## ")[0]
    folders = {path.parent.name for path in (ROOT / "harness").glob("*/__init__.py")}
    assert [name for name in sorted(folders) if not re.search(rf"^{name}/", tree, re.M)] == []
    for block, name in re.findall(r"^(\w+)/(?:.|\n(?!\w))*?\n  (\w+\.py)", tree, re.M):
        assert (ROOT / "harness" / block / name).exists(), name


def test_lists_are_the_tables():
    """What documents enumerate is what the tables of the program have."""
    measuring, accuracy, predictions = (
        (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("measuring", "accuracy", "predict")
    )
    for part, on_card, on_cpu in re.findall(r"^\| `(\w+)=` \| (.*) \| (.*) \|$", measuring, re.M):
        assert re.findall(r"`(\w+)`", on_card) == list(KERNELS["cuda"][part])
        assert re.findall(r"`(\w+)`", on_cpu) == list(KERNELS["cpu"][part])
    assert re.findall(r"^\| `([^`]+)` \|", accuracy, re.M) == list(ARMS)
    cards = re.search(r"a card of the table: (.*?)\. The driver", predictions, re.S)[1]
    assert " ".join(cards.split()).split(", ") == list(ACCELERATORS)
    columns = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    statuses = re.search(r"`status`, `verdict`, `reason` \| (.*?);", columns)[1]
    assert re.findall(r"`(\w+)`", statuses) == [OK, *FAILURES]


# ---- Code that documents show


def test_the_readmes_python_calls_what_there_is():
    code = re.search(r"```python\n(.*?)```", README, re.S)[1]
    configure = {"bench": bench.configure, "predict": predict.configure, "ttft": ttft.configure, "load": harness.load}
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    names = [node.func.attr for node in calls if isinstance(node.func, ast.Attribute)]
    assert set(names) == {"bench", "load", "predict", "ttft"}
    for node in calls:
        taken = set(inspect.signature(configure[node.func.attr]).parameters) | {"budget_hours", "steps", "test_tasks"}
        assert {word.arg for word in node.keywords} <= taken


def test_the_readmes_record_is_loaded():
    record = harness.load(str(ROOT / "results/reference/make-bench-qwen-0.5b"), budget_hours=9)
    assert list(record.frame[["precision", "context", "hours_mid", "verdict"]]["verdict"])[-1] == "tight"


def test_the_jobs_exist():
    text = (ROOT / "harness" / "README.md").read_text(encoding="utf-8")
    jobs = re.findall(r"`(harness\.[\w.]+:\w+)`", text)
    assert jobs and all(list(inspect.signature(job_named(job)).parameters) == ["payload", "emit"] for job in jobs)


def test_the_sketch_of_an_executor_runs_jobs():
    text = (ROOT / "harness" / "README.md").read_text(encoding="utf-8")
    names = {}
    exec(re.search(r"```python\n(.*?)```", text, re.S)[1], names)
    with names["PoolExecutor"](ThreadPoolExecutor(1)) as executor:
        assert look(executor, "cpu").device.kind == "cpu"
