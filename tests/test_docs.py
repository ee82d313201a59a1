"""The documents against the program: help texts, quoted output, lists, links, code."""

import ast
import inspect
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers.documents import DOCUMENTS, ROOT, VERBS

import harness
from harness.arc.arms import ARMS
from harness.catalog.accelerators import ACCELERATORS
from harness.catalog.kernels import KERNELS
from harness.cli import app, bench, predict, ttft
from harness.records.measurement import FAILURES, OK
from harness.report import frame
from harness.workers.look import find
from harness.workers.serve import job_named

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_of_verbs_has_the_real_help_lines():
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (.+) \|$", README, re.M))
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
    assert len(README.splitlines()) <= 200


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
    record = harness.load(str(ROOT / "results/reference/make-bench-qwen-0.5b"), budget_hours=7)
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
        assert find(executor, "cpu").kind == "cpu"
