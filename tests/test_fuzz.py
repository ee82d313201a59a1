"""Three hundred of the examples that `make fuzz` makes twenty thousand of, always the same ones."""

import re
import warnings

import pytest
from fuzz import verbs, world
from fuzz.run import Example, World
from hypothesis import HealthCheck, Phase, given, settings

EXAMPLES = 300
# Faults that are known and not mended yet, as patterns of their causes.
LATER: tuple[str, ...] = ()


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    return World(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("name", verbs.NAMES)
def test_bad_input_ends_with_one_line_and_a_code_and_destroys_nothing(fuzzed, name):
    wrong: list[str] = []
    share = next(share for share in verbs.shares(fuzzed, EXAMPLES) if share.name == name)

    @settings(max_examples=share.count, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(share.strategy)
    def run(example):
        # What a library warns of in this process goes to a worker's log in the real one.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            faults = fuzzed.run(example)[1]
        about = f"harness {example.words} with {example.files}"
        known = re.compile("|".join(LATER or ["(?!)"]))
        wrong.extend(f"{f.cause}: {f.detail}\n  {about}"[:2000] for f in faults if not known.search(f.cause))

    run()
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("verb", verbs.VERBS)
def test_every_verb_ends_well_on_good_input(fuzzed, verb):
    """Else the examples would show nothing: each is this with one thing spoiled."""
    for words in verbs.BASES.get(verb, ((),)):
        end, faults = fuzzed.run(Example("good", (verb, *words)))
        assert (end.code, faults) == (0, []), end


def test_every_row_of_the_table_has_its_files_and_reads_them(fuzzed):
    for row in verbs.ROWS:
        assert fuzzed.read(row.files), row.name
        assert all(words[0] in verbs.VERBS for words in row.words), row.name


@pytest.mark.parametrize(
    ("code", "out", "err", "cause"),
    [
        (3, "", "", "exit code 3"),
        (1, "", "Traceback (most recent call last)\n", "prints a traceback"),
        (2, "", "sorry\n", "code 2 without its one line"),
        (2, "", "error: no\nerror: no\n", "code 2 without its one line"),
        (2, "", f"error: {'x' * 500}\n", "a message of over 400 letters"),
        (0, "a\x1b[2Jb", "", "on stdout"),
        (0, "", "a\u202eb", "on stderr"),
        (0, "1.5 nan", "", "shows nan"),
    ],
)
def test_what_must_not_be_is_seen(fuzzed, monkeypatch, code, out, err, cause):
    """The suite itself, with a program that ends as none may."""

    def main(words):
        import sys

        sys.stdout.write(out)
        sys.stderr.write(err)
        sys.exit(code)

    monkeypatch.setattr("harness.cli.app.main", main)
    _, faults = fuzzed.run(Example("bad", ("report",)))
    assert [cause in fault.cause for fault in faults] == [True]


def test_lost_rows_and_changed_inputs_are_seen(fuzzed, monkeypatch):
    def main(words):
        open("models.yaml", "a").close()  # noqa: PTH123  # as it was
        for name in ("card.yaml", f"{world.RESULTS}/records.jsonl"):
            with open(name, "w") as file:  # noqa: PTH123
                file.write("gone\n")

    monkeypatch.setattr("harness.cli.app.main", main)
    _, faults = fuzzed.run(Example("bad", ("report",)))
    assert [fault.cause for fault in faults] == [
        "report: changes its input card.yaml",
        "report: loses rows of records.jsonl",
    ]


def test_an_endless_verb_is_ended(fuzzed, monkeypatch):
    monkeypatch.setattr("fuzz.run.SECONDS", 0.2)

    def main(words):
        while True:
            pass

    monkeypatch.setattr("harness.cli.app.main", main)
    end, faults = fuzzed.run(Example("bad", ("report",)))
    assert end.code is None and "Hang" in faults[0].cause
