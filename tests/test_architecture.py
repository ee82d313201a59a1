"""Who may import whom: arrows point down only, and there is no circle. Lazy imports inside functions count too."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "harness"
# From the lowest floor to the highest; a package imports from its own and from floors below, never from beside.
FLOORS = (
    {"text", "digits"},
    {"errors"},
    {"files", "limits", "network", "shard"},
    {"records"},
    {"catalog", "hardware", "arc", "logs"},
    {"train", "workers", "analysis"},
    {"predict", "tiny"},
    {"measure", "tune"},
    {"solve"},
    {"report", "pipeline", "kaggle"},
    {"cli"},
    {"api"},
)
LEVEL = {package: level for level, floor in enumerate(FLOORS) for package in floor}
# Of packages that may import torch, where only some modules do.
TORCH = ("train", "hardware", "tiny", "tune.runner", "tune.finetune", "tune.decode", "tune.autotune", "tune.checkpoint",
         "predict.op_trace", "predict.meta_kernels", "predict.tracer", "predict.flops", "measure.worker",
         "tune.experiment", "tune.saved_state", "tune.answers", "tune.candidates", "tune.grid_tokens", "tune.scoring",
         "tune.search", "solve.worker")  # fmt: skip
EXCEPTIONS: set[tuple[str, str]] = set()
NO_ARC = ("tune.finetune", "tune.decode")  # they train and decode tokens, whatever these say


def modules():
    return sorted(path for path in ROOT.rglob("*.py") if path.name != "__main__.py")


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path):
    """Dotted names of this program's modules that `path` imports, without the leading "harness."."""
    names = {name_of(each) for each in modules()}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "harness":
            for alias in node.names:
                whole = f"{node.module}.{alias.name}".removeprefix("harness.")
                yield whole if whole in names else node.module.removeprefix("harness").removeprefix(".")
        elif isinstance(node, ast.Import):
            yield from (each.name.removeprefix("harness.") for each in node.names if each.name.startswith("harness."))


@pytest.mark.parametrize("name", NO_ARC)
def test_training_and_decoding_know_no_arc(name):
    path = ROOT / f"{name.replace('.', '/')}.py"
    assert not [imported for imported in imports(path) if imported.startswith("arc")]


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_arrows_point_down(path):
    name = name_of(path)
    package = name.partition(".")[0]
    if not name:  # harness itself offers the public names, lazily
        return
    for imported in imports(path):
        target = imported.partition(".")[0]
        if target != package and (name, imported) not in EXCEPTIONS:
            assert LEVEL[target] < LEVEL[package], f"{name} imports {imported}"


def test_there_is_no_circle():
    arrows = {name_of(path): set(imports(path)) for path in modules() if name_of(path)}
    done: set[str] = set()

    def visit(name, trail):
        assert name not in trail, f"a circle: {' -> '.join([*trail[trail.index(name) :], name])}"
        if name not in done:
            for each in sorted(arrows.get(name, ())):
                if (name, each) not in EXCEPTIONS:
                    visit(each, [*trail, name])
            done.add(name)

    for name in arrows:
        visit(name, [])


def test_exceptions_are_still_needed():
    arrows = {(name_of(path), each) for path in modules() for each in imports(path)}
    assert arrows >= EXCEPTIONS


def test_no_name_is_the_standard_librarys():
    """With harness/ or one of its folders on sys.path such a module would be imported instead."""
    for path in modules():
        for part in path.relative_to(ROOT).with_suffix("").parts:
            assert part == "__init__" or part not in sys.stdlib_module_names, path


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_torch_is_imported_where_it_is_needed_alone(path):
    heavy = {"torch", "transformers", "peft", "bitsandbytes"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [each.name for each in node.names] if isinstance(node, ast.Import) else []
        for each in names:
            assert each.split(".")[0] not in heavy or name_of(path).startswith(TORCH), f"{name_of(path)}: {each}"
