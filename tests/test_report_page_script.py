"""The page's script by itself, run by node: it judges every cell and writes its numbers as Python does."""

import json
import math
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.pages import many, rows_of_all_kinds
from helpers.records import cell, result, row

from harness.digits import rounded
from harness.records.cell import Goal
from harness.records.measurement import PredictedAnswers
from harness.report import format
from harness.report.page import cells, render
from harness.report.page.judged import Content, Judged

SCRIPT = (Path(render.__file__).parent / "templates" / "page.js").read_text()
if not shutil.which("node"):
    pytest.skip("node is not installed", allow_module_level=True)


def node(folder, text):
    """What `text` prints, which is JSON."""
    (folder / "x.js").write_text(text)
    return json.loads(subprocess.run(["node", str(folder / "x.js")], capture_output=True, text=True, check=True).stdout)


def drawn_at_random(count=24):
    """(rows, results): many and few samples, answers predicted well and badly, losses that are no numbers, arms."""
    pick = random.Random(7)
    rows = []
    for i in range(count):
        own = cell(context=pick.choice((256, 512, 1024, 2048)), precision=pick.choice(("fp32", "bf16")))
        base = 10 ** pick.uniform(-3, 2)
        samples = tuple(base * pick.lognormvariate(0, 0.5) for _ in range(pick.choice((1, 2, 12))))
        answering = PredictedAnswers(base * 1e-4, base * 1e-4, base * 1e-2, 16, pick.choice((0.1, 2.0)))
        losses = (1.0, math.nan) if i % 5 == 0 else (2.0, 1.0)
        more = {"answering": answering, "predicted_micro_s": base} if i % 3 else {}
        rows.append(row(samples, cell=own, key=f"r{i}", losses=losses, load_s=pick.choice((0.0, 600.0)), **more))
    arms = [
        result(right, steps=8, scope=scope, decode_s=40.0, precision="bf16", compute_dtype="fp32", context=512)
        for right, scope in ((3, "shared"), (5, "task"))
    ]
    return rows, arms


@pytest.mark.parametrize("kind", [rows_of_all_kinds, drawn_at_random, lambda: (many(100), [])])
def test_it_judges_every_cell_and_writes_its_hours_as_python_does(kind, tmp_path):
    rows, results = kind()[:2]
    goals = [Goal(budget, steps, 400) for budget in (12, 0.02, 1.5, 300) for steps in (1000, 1, 40000)]
    by_goal = [Judged.of(Content(folder=Path("x"), rows=rows, results=results), goal) for goal in goals]
    rule = SCRIPT.partition("const WIDE =")[2].partition("  function put(")[0]
    made = node(
        tmp_path,
        f"const data = {render._json_in_html(cells.for_script(by_goal[0]))};\nlet budget, steps;\nconst WIDE ={rule}"
        f"const goals = {[[goal.budget_hours, goal.steps] for goal in goals]};\n"
        "const text = own => own.hours ? `${hours(...own.hours)} ${own.run.mark}` : '-';\n"
        "console.log(JSON.stringify(goals.map(goal => { [budget, steps] = goal; const best = pick(); return {"
        "best: best ? `${best.name} at ${best.context}` : '', rows: data.cells.map(cell => { const own = judge(cell);"
        "return [cell.train ? trained(cell) : '-', text(own), own.word]; })}; })));",
    )
    for judged, own in zip(by_goal, made, strict=True):
        assert own["rows"] == [[text[4], text[5], text[9]] for text in cells.table(judged)]
        best = judged.choice.best
        # Python may rank by accuracies at a projected dose, the script by measured ones alone.
        if not best or not any(candidate.estimate for candidate in judged.choice.fits):
            assert own["best"] == (f"{best.name} at {best.context}" if best else "")


def test_the_script_writes_numbers_as_python_does_and_reads_them_again(tmp_path):
    values = [
        0.0,
        0.00003,
        0.04,
        0.4,
        1.85,
        3.14159,
        27.1,
        999.4,
        1234.4,
        56790.0,
        999_999.0,
        1.5e6,
        9.999e8,
        2.8e11,
        3e15,
    ]
    functions = SCRIPT.partition("// ---- Text\n")[2].partition("function put(")[0]
    out = node(
        tmp_path,
        f"{functions}const values = {values};\nconsole.log(JSON.stringify(values.map(v => "
        "[figures(v), hours(v / 2, v, 2 * v), hours(v, v, Infinity), numberIn(figures(v))])));",
    )
    for value, (text, span, open_end, read_again) in zip(values, out, strict=True):
        assert text == rounded(value) and span == format.hours(value / 2, value, 2 * value)
        assert open_end == format.hours(value, value, math.inf)
        assert read_again == (0 if value < 1e-4 else pytest.approx(min(value, 999e12), rel=0.005))
