"""The table of the fuzz suite: which document is spoiled, and which command lines read it then.

A verb or a file that comes later joins by a row of `ROWS`; a verb's options join by themselves (`command_lines`).
"""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml
from fuzz import values, world
from fuzz.run import Example, World
from fuzz.values import YAML_VALUES, as_json, as_yaml, document
from hypothesis import strategies as st
from typer.main import get_command

from harness.cli import app

Words = tuple[str, ...]
RECORD = ("--results", world.RESULTS)
# Command lines that read a record.
READERS: tuple[Words, ...] = (
    ("report", *RECORD, "--csv", "out.csv"),
    ("report", *RECORD, "--format", "csv pytest-benchmark"),
    ("report", "--budget-hours", "0.01"),
    ("pick", *RECORD),
    ("calibrate", *RECORD),
    ("plan",),
    ("bench", "bare", f"./{world.MODEL}", "--precisions", "fp32 bf16", *RECORD),
)
PAGE: Words = ("report", *RECORD, "--html", "out.html", "--figures", "pictures", "--history")
TUNES: tuple[Words, ...] = (("ttft", f"./{world.MODEL}", "--project-to", "30", "--show", "1", *RECORD),)
PREDICT: tuple[Words, ...] = (
    ("predict", "bare", "--gpu", "t4"),
    ("predict", "other", "--gpu", "cpu t4", "--max-context"),
)
CATALOG: tuple[Words, ...] = (
    ("models",),
    ("plan", "bare", "other", "--gpu", "l4"),
    *PREDICT,
    ("report", *RECORD),
    ("pick", *RECORD),
    ("bench", "bare", "--results", "new", "--no-accuracy"),
    ("bench", f"./{world.MODEL}", "--results", "new"),
    ("ttft", f"./{world.MODEL}", "--results", "new"),
)  # fmt: skip
REAL = (world.TRAINS,)


def lines_of(content: bytes) -> list[bytes]:
    return [line for line in content.split(b"\n") if line]


def json_lines(content: bytes) -> st.SearchStrategy[bytes]:
    """One line of `content` changed, the others as they are."""
    lines = lines_of(content)

    def with_line(number: int) -> st.SearchStrategy[bytes]:
        changed = document(json.loads(lines[number]))
        ends = st.sampled_from([b"\n", b"\n", b"\n", b"", b"\r\n"])
        return st.tuples(changed, ends).map(
            lambda pair: b"\n".join([*lines[:number], pair[0], *lines[number + 1 :]]) + pair[1]
        )

    return st.integers(0, len(lines) - 1).flatmap(with_line)


def yaml_file(content: bytes) -> st.SearchStrategy[bytes]:
    return document(yaml.safe_load(content), as_yaml, YAML_VALUES)


def json_file(content: bytes) -> st.SearchStrategy[bytes]:
    return document(json.loads(content))


TEMPLATES = [
    "", "{", "{{", "{% for %}", "{% if x %}", "{{ ''.__class__.__mro__ }}", "{{ messages[9].content }}",
    "{{ nosuch.x }}", "{{ raise_exception('no') }}", "{{ 1 / 0 }}", "{% include 'x' %}", "{{ messages }}",
    "{{ messages[0]['content'] * 3 }}", "{{ range(10 ** 12) }}", "{{ '\\x1b[2J' }}", "\ud800", "x" * 5000,
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{% for m in messages %}{{ m.role }}{% endfor %}",
    "{% for m in messages %}{{ m.content }}{% endfor %}", None, 1, [], {}, [{"name": "default", "template": "{{"}],
    {"default": "x"},
]  # fmt: skip


def chat_template(content: bytes) -> st.SearchStrategy[bytes]:
    config = json.loads(content)
    return st.sampled_from(TEMPLATES).map(lambda template: as_json({**config, "chat_template": template}))


def checkpoint(content: bytes) -> st.SearchStrategy[bytes]:
    """A state with a change that weights_only lets through: tensors of other shapes and types, and other values."""
    import torch

    def leaf(value: Any) -> Any:
        return {"@tensor": list(value.shape)} if isinstance(value, torch.Tensor) else value

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(member) for key, member in value.items()}
        if isinstance(value, list | tuple):
            return [plain(member) for member in value]
        return leaf(value)

    tensors = [
        torch.zeros(3), torch.zeros(0), torch.tensor(float("nan")), torch.zeros(2, 3, dtype=torch.int64),
        torch.full((4, 32), float("inf")), torch.zeros(3, dtype=torch.bool), torch.zeros(3, dtype=torch.complex64),
    ]  # fmt: skip
    odd = st.sampled_from(tensors) | st.sampled_from([*values.NUMBERS, *values.TEXTS, None, True, *values.CONTAINERS])
    base = torch.load(io.BytesIO(content), weights_only=True)

    def written(state: Any) -> bytes:
        file = io.BytesIO()
        torch.save(state, file)
        return file.getvalue()

    return st.one_of(*[values.mutated(base, odd).map(written)] * 4, odd.map(written), values.damaged(content))


@dataclass(frozen=True)
class Row:
    """A kind of bad input: `files`, by a glob in the world, are spoiled by `spoil`, one per example, and one of `words`
    runs then.

    "{}" in words stands for the file's path. `without` are files to take away; `weight` is the share of examples. See
    Example for `real` and `may_crash`.
    """

    name: str
    files: str
    spoil: Callable[[bytes], st.SearchStrategy[bytes]]
    words: tuple[Words, ...]
    weight: int = 8
    real: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    may_crash: bool = False

    def examples(self, at: World) -> st.SearchStrategy[Example]:
        found = at.read(self.files)
        assert found, f"the world has no {self.files}"

        def of(name: str) -> st.SearchStrategy[Example]:
            return st.builds(
                lambda content, words, encoding: Example(
                    self.name,
                    tuple(word.replace("{}", name) for word in words),
                    {**dict.fromkeys(self.without), name: content},
                    encoding,
                    self.real,
                    self.may_crash,
                ),
                self.spoil(found[name]),
                st.sampled_from(self.words),
                ENCODINGS,
            )

        return st.sampled_from(sorted(found)).flatmap(of)


ENCODINGS = st.sampled_from(["utf-8"] * 18 + ["ascii", "latin-1"])
MODEL = f"./{world.MODEL}"
ROWS = (
    Row("records", f"{world.RESULTS}/records.jsonl", json_lines, (*READERS, PAGE), 24),
    Row("accuracies", f"{world.RESULTS}/accuracy.jsonl", json_lines, (*READERS[:4], READERS[-1], *TUNES, PAGE), 16),
    Row("models.yaml", "models.yaml", yaml_file, CATALOG, 16),
    Row("cards", "card.yaml", yaml_file, (("predict", "bare", "--gpu", "{}"), ("plan", "bare", "--gpu", "{}"),
                                          ("predict", "bare", "--gpu", "2x{}", "--max-batch", "--csv", "out.csv"))),
    Row("parts of a record", f"{world.RESULTS}/*.jsonl", json_lines, ((
        "merge", world.RESULTS, "solved", "--into", "new", "--tasks", "tasks", "--out", "out.json"),), 8),
    Row("records compared", f"{world.RESULTS}/*s.jsonl", json_lines, (
        ("compare", world.EARLIER, world.RESULTS, "--gate"),
        ("compare", f"{world.RESULTS}/records.jsonl", world.EARLIER, "--csv", "out.csv"))),
    Row("published steps", world.PUBLISHED, lambda content: values.damaged(content), (
        ("compare", world.RESULTS, "{}"),), 2),
    Row("accuracies compared", f"{world.RESULTS}/accuracy.jsonl", json_lines, (
        ("compare", world.EARLIER, world.RESULTS, "--csv", "out.csv"),), 4),
    Row("traces", "cache/traces/*.json", json_file, (READERS[4], READERS[-1])),
    Row("calibrations", f"{world.RESULTS}/calibration.json", json_file, (
        *PREDICT, ("plan",), ("predict", "--gpu", "cpu"))),
    Row("logs", "logs/*.*n*", json_file, (("import-log", "{}", *world.IMPORT), ("import-log", "{}"), (
        "import-log", "{}", "logs/peft.json", *world.IMPORT))),
    Row("printed logs", "logs/*.txt", lambda content: values.damaged(content), (
        ("import-log", "{}", *world.IMPORT),), 4),
    Row("tokens per task", "tokens.json", json_file, (
        ("predict", "bare", "--gpu", "l4", "--context", "64", "--tokens-per-task", "{}"),), 4),
    Row("imported runs", "imported/imported.jsonl", json_lines, (
        ("calibrate", "--results", "imported"),
        ("import-log", "logs/train.txt", *world.IMPORT, "--results", "imported")), 4),
    Row("tasks", "tasks/*.json", json_file, (("coverage", "tasks"), ("ttft", MODEL, "--results", "new"),
                                             ("ttft", MODEL, "--results", "new", "--show", "3", "--pictures", "3"))),
    Row("one task", "tasks/*.json", json_file, (("coverage", "{}"), (
        "ttft", MODEL, "--set", "{}", "--results", "new"))),
    Row("challenges", "kaggle_*.json", json_file, (("coverage", "kaggle_challenges.json"), (
        "ttft", MODEL, "--dataset", "kaggle_challenges.json", "--results", "new", "--show", "2", "--arms", "n-1"))),
    Row("solutions", "kaggle_solutions.json", json_file, (
        ("ttft", MODEL, "--dataset", "kaggle_challenges.json", "--solutions", "{}", "--results", "new"),)),
    Row("solved tasks", "solved/solved.jsonl", json_lines, (world.SOLVED,)),
    Row("runs", "solved/runs/*.json", json_file, (world.SOLVED,), 4),
    Row("tasks to solve", "kaggle_challenges.json", json_file, (
        ("solve", MODEL, "--tasks", "{}", "--results", "new", "--budget-hours", "1"),)),
    Row("recipes", world.RECIPE, yaml_file, (
        ("solve", "--recipe", "{}", "--tasks", "tasks", "--results", "new", "--budget-hours", "1"),), 4),
    Row("configs", "m/config.json", json_file, (
        ("plan", MODEL), ("predict", MODEL, "--gpu", "t4"), ("bench", MODEL, "--results", "new"),
        ("ttft", MODEL, "--results", "new"))),
    Row("GGUF files", world.GGUF, lambda content: values.damaged(content), (
        ("plan", "./{}"), ("bench", "./{}", "--results", "new"), ("ttft", "./{}", "--results", "new"),
        ("ttft", "bare", "--weights", "{}", "--results", "new")), 4),
    # These train for real, or load what a training would.
    Row("tokenizers", "m/tokenizer*.json", json_file, (("coverage", "tasks", "--tokenizer", "m"),), 1),
    Row("model folders", "m/*", lambda content: values.damaged(content), (
        world.TUNE, ("coverage", "tasks", "--tokenizer", "m")), 1, REAL, ("tuned/checkpoints",)),
    Row("tokenizers that train", "m/tokenizer*.json", json_file, (world.TUNE,), 1, REAL),
    Row("chat templates", "m/tokenizer_config.json", chat_template, (
        world.TUNE, ("coverage", "tasks", "--tokenizer", "m")), 1, REAL),
    # An architecture may be anything that its own code does not take: that is a crashed row, with the reason.
    Row("architectures", "m/[cg]*config.json", json_file, (world.TUNE,), 1, REAL, may_crash=True),
    Row("checkpoints", "tuned/checkpoints/*.pt", checkpoint, (world.TUNE,), 2, REAL),
    Row("kernel choices and checks", "cache/[!t]*/*.json", json_file, (world.TUNE,), 1, REAL),
)  # fmt: skip


# ---- Command lines

# Words that let a verb begin; those of a verb without a row are none.
BASES: dict[str, tuple[Words, ...]] = {
    "bench": (("bare", "--results", "new"), (MODEL, "--results", "new"), (f"./{world.GGUF}", "--results", "new")),
    "plan": (("bare",), (MODEL, "--tasks", "tasks", "--gpu", "t4", "--context", "256")),
    "report": (RECORD, ()),
    "pick": (RECORD,),
    "ttft": ((MODEL, "--results", "new"),),
    "coverage": (("tasks",),),
    "solve": (world.SOLVED[1:], (MODEL, "--tasks", "tasks", "--results", "new")),
    "predict": (
        ("bare", "--gpu", "t4"),
        ("bare", "--gpu", "card.yaml"),
        ("bare", "--smallest", "--price", "l4=0.35"),
        ("bare", "--gpu", "l4", "--tokens-per-task", "tokens.json"),
    ),
    "calibrate": (RECORD,),
    "compare": (
        (world.EARLIER, world.RESULTS),
        (world.RESULTS, world.EARLIER, "--gate"),
        (world.RESULTS, world.PUBLISHED),
    ),
    "import-log": (("logs/trainer_state.json", *world.IMPORT), ("logs/train.txt", "logs/peft.json", *world.IMPORT)),
    "merge": ((world.RESULTS, "--into", "new"), (world.RESULTS, "solved", "--into", "new", "--tasks", "tasks")),
}
VALID = [
    "64", "64 128", "1", "2", "0.5", "fp32", "fp32 int4", "bf16", "cpu", "auto", "t4", "2xt4", "bare", "b", MODEL,
    "tasks", "n-1", "baseline, n-1", "all", "attention", "all-linear", "q_proj v_proj", "own", "reference", "arc24",
    "lora", "full", "layers", "rows", "spaced", "drop", "task", "csv", "models.yaml", "card.yaml", "new",
    world.RESULTS, "kaggle_challenges.json", "kaggle_solutions.json", "generated", "plain", "attention=sdpa", "mlp",
    "random", "out.csv", "out.html", "23:59", "0.0001", "solved", "earlier", "greedy", "sample", "dfs", "vote", "score",
    "1/2", "tensorboard",
]  # fmt: skip
# No devices, nothing above the working folder: the verbs write to what they are given.
ODD = [
    "", " ", ",", "-", "--", "-1", "0", "-0", "00", "+1", "1_0", "1e3", "²", "٣", "9" * 20, "9" * 400, "9" * 5000,
    "1e308", "1e-320", "-inf", "1e400", "0x10", "x" * 5000, "x/" + "y" * 120, "nobody/nothing", "~nosuchuser/x",
    "~nosuchuser", ".", "./", "nosuch", "nosuch.yaml", "m/config.json", "tasks/t0.json", "models.yaml/x", "cuda:0",
    "cuda:99999999999999999999", "0xt4", "9" * 30 + "xt4", "x4", "[/]", "[link=x]y[/link]", "\x1b[2J", "\u202etxt",
    "\udcff", "a\nb", "a\tb", "=1+1", "é", "😀", "generated+generated", "arc1-evaluation+x", "n-1, n-1",
    "q_proj q_proj",
    "attention=", "=", "attention=nosuch", "x=y", "int4 int4", "true", "None", "%s", "{0}", "-h", "1 000", "1,5", "1;2",
    "25:00", "12:60", "-1:00", "64 64", "64,,128", "1" + " 64" * 400,
]  # fmt: skip
VERBS = get_command(app.app).commands  # type: ignore[attr-defined]  # a group


@st.composite
def command_lines(draw: st.DrawFn) -> Example:
    """A verb with up to three of its options, at values that fit and at values that do not."""
    verb = draw(st.sampled_from(sorted(VERBS)))
    options = [param for param in VERBS[verb].params if param.param_type_name == "option"]
    words = [verb, *draw(st.sampled_from(BASES.get(verb, ((),))))]
    value = st.sampled_from(ODD) | st.sampled_from(VALID)
    for option in draw(st.lists(st.sampled_from(options), max_size=3)) if options else ():
        name = draw(st.sampled_from([*option.opts, *option.secondary_opts]))
        words += [name] if getattr(option, "is_flag", False) else [name, draw(value)]
    # Now and then a word too many, or one that is no option.
    if not draw(st.integers(0, 5)):
        words.append(draw(value | st.sampled_from(["--nosuch", "--nosuch=1", "--steps"])))
    return Example("command lines", tuple(words), {}, draw(ENCODINGS))


@dataclass(frozen=True)
class Share:
    """So many examples of one row of the table."""

    name: str
    strategy: st.SearchStrategy[Example]
    count: int


COMMAND_LINES = ("command lines", 48)  # as if a row, and its weight
NAMES = [row.name for row in ROWS] + [COMMAND_LINES[0]]


def shares(at: World, count: int) -> list[Share]:
    """`count` examples, or a few more, divided among the rows by weight; two of each at least."""
    kinds = [(row.name, row.examples(at), row.weight) for row in ROWS]
    kinds.append((COMMAND_LINES[0], command_lines(), COMMAND_LINES[1]))
    total = sum(weight for *_, weight in kinds)
    return [Share(name, strategy, max(2, round(count * weight / total))) for name, strategy, weight in kinds]
