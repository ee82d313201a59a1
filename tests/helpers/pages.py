"""Records for the page: with everything in it, with hostile names, and with many rows."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from helpers.records import cell, curve, result, row

from harness.records.arm import ROWS as ARMS
from harness.records.cell import ModelSpec, Recipe
from harness.records.solving import ROWS as SOLVED
from harness.records.solving import SolvedTask, key_of
from harness.records.store import MEASUREMENTS, Store

NOTHING: list = []
# What a browser, a template, a picture or a table may take for more than a text.
HOSTILE = (
    "<script>alert(1)</script>", "</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>",
    "\" onmouseover=\"alert(1)", "' onfocus='alert(1)", "javascript:alert(1)", "{{ 7 * 7 }}", "{% raw %}",
    "<!-- ", "]]>", "<svg onload=alert(1)>", "&lt;b&gt;", "</style><style>*{display:none}", "$\\frac{1}{0}$",
    "\x1b[2Jgone", "\u202egnp.exe", "a\x00b", "\ud800half", "x" * 3000, "</title><h1>mine", "_hidden", "日本語 😀",
)  # fmt: skip
_GIB = 1 << 30
# Of the first tasks of helpers.tasks.made_tasks: one nearly right, one without a grid, one of another shape.
ANSWERS = {"t0": (("866\n630", "123\n456"),), "t1": ((),), "t2": (("12\n34\n56",),)}


def _cells(model: ModelSpec, peaks=(1.0, 1.5, 2.5), seconds=(0.5, 1.0, 2.2), precision="bf16", **changes) -> list:
    made = []
    for i, context in enumerate((512, 1024, 2048)):
        own = cell(model=model, precision=precision, compute_dtype="bf16", context=context)
        made.append(
            row(
                (seconds[i],) * 6 + (seconds[i] * 1.02,) * 6,
                cell=own,
                key=f"{model.name}-{precision}-{context}",
                memory={"steady": {"resident": int(peaks[i] * _GIB)}},
                started=f"2025-01-02T03:0{i}:00+00:00",
                versions={"torch": "2.14.1"},
                commit="abc123",
                **changes,
            )
        )
    return made


def rows_of_all_kinds():
    """(rows, results, rows of solve): measured and failed cells, arms with curves, a queue of two workers."""
    tiny = ModelSpec("tiny", {}, 8192, params_m=1.0)
    rows = [
        *_cells(tiny),
        *_cells(tiny, (0.8, 1.0, 1.4), (0.8, 1.5, 3.1), "int4"),
        row(status="oom", reason="ran out of memory", key="oom",
            cell=cell(model=tiny, precision="bf16", compute_dtype="bf16", context=4096)),
    ]  # fmt: skip
    return rows, arms(), solved()


def arms():
    spec = {"model": ModelSpec("tiny", {}, 8192, params_m=1.0), "precision": "bf16", "compute_dtype": "bf16"}
    return [
        result(4, 20, steps=0, arm="baseline", **spec),
        result(9, 20, decode_s=40.0, curve_points=curve(20, 3, 5, 7, 9), **spec),
        result(
            11, 20, arm="+ color swap", decode_s=40.0, curve_points=curve(20, 4, 6, 9, 11), attempts=ANSWERS, **spec
        ),
        replace(result(1, 20, arm="+ scale", **spec), status="oom", reason="ran out of <memory>", scores=()),
    ]


def solved(count: int = 12) -> list[SolvedTask]:
    start = datetime(2025, 1, 2, 4, tzinfo=UTC)
    made = []
    for i in range(count):
        began = start + timedelta(seconds=60 * (i // 2))
        failed = i == 5
        made.append(
            SolvedTask(
                key=key_of("run", f"t{i}", 1), run="run", setting="s", task=f"t{i}", attempt=1, device=f"cuda:{i % 2}",
                started=began.isoformat(), status="oom" if failed else "ok", reason="no memory" if failed else "",
                train_s=30.0 + i, decode_s=15.0, expected_s=44.0, load_s=5.0 if i < 2 else 0.0,
            )
        )  # fmt: skip
    return made


def hostile():
    """(rows, results): a cell per hostile text, which is its model, reason or recipe; and such arms."""
    rows = []
    for i, text in enumerate(HOSTILE):
        spec = ModelSpec(text, {}, 4096, hub_id=text)
        own = cell(model=spec, precision=text, weights=text, device_name=text, recipe=Recipe(kernels=text))
        made = row(key=f"h{i}", cell=own, notes=(text,), kernels=text, commit=text, versions={"torch": text})
        rows.append(made if i % 3 else row(status="crashed", key=f"h{i}", cell=own, reason=text))
    results = [
        result(3, arm=text, curve_points=curve(10, 1, 2, 3, 4), model=ModelSpec(text, {}, 4096), dataset=text,
               key=f"a{i}")
        for i, text in enumerate(HOSTILE)
    ]  # fmt: skip
    return rows, results


def many(count: int) -> list:
    """So many cells of 20 models; a third of them failed, each with a sentence."""
    rows = []
    for i in range(count):
        spec = ModelSpec(f"model-{i % 20}-instruct", {}, 32768, params_m=100.0 + i % 20)
        own = cell(model=spec, precision=("bf16", "fp16", "int4", "int8")[i // 20 % 4], context=256 * (1 + i // 80))
        seconds = 0.05 + 0.002 * (i % 97)
        if i % 3:
            rows.append(row((seconds,) * 11 + (seconds * 1.1,), cell=own, key=f"m{i}"))
        else:
            why = f"not started: about {i} s a micro-step, {3 * i} s at least, cap 180 s; fp16 is emulated here"
            rows.append(row(status="too_slow", cell=own, key=f"m{i}", reason=why))
    return rows


def folder_of_all_kinds(path):
    """A results folder of all three verbs."""
    for kind, own in zip((MEASUREMENTS, ARMS, SOLVED), rows_of_all_kinds(), strict=True):
        store = Store(path, kind=kind)
        for made in own:
            store.add(made)
    return path
