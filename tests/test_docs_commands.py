"""Every command line that a document quotes exists, and so do its options and variables."""

import re
import shlex

import pytest
from helpers.documents import DOCUMENTS, ROOT, VERBS

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = {name for line in re.findall(r"^([a-z][a-z -]*):", MAKEFILE, re.M) for name in line.split()}
# Targets whose ARGS are another program's.
SCRIPTS = {
    "backtest": "bench/backtest.py",
    "backtest-projection": "bench/backtest_projection.py",
    "backtest-accuracy": "bench/backtest_accuracy.py",
    "tiny": "harness/tiny/pretrain.py",
    "wheels": "notebooks/wheels.py",
}


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
ANY_OPTION |= {
    name for path in (*ROOT.glob("bench/*.py"), *ROOT.glob("notebooks/*.py")) for name in script_options(path)
}


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
    assert all(f"$({name})" in MAKEFILE or f"option,{name}," in MAKEFILE for name in values), words
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
    elif words[:2] == ["python", "-m"] and words[2].startswith(("bench.", "notebooks.")):
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
