"""Runs one example, a command line in a folder with some files, in this process, and says what is wrong with the end.

What must hold is in `faults`: exit code 0, 1, 2 or 130; no traceback; with 2 one line on stderr that begins "error: ";
nothing printed or written for people that a terminal would obey; an end within five seconds of this process's time; no
good row lost and no other input changed.
"""

import io
import json
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from unittest import mock

from fuzz import world
from fuzz.values import FOLDER, LOOP

SECONDS = 5.0  # of the processor
CODES = (0, 1, 2, 130)
EARLIER_DAY = "2020-01-02T03:04:05+00:00"
LONGEST_LINE = 400
# What a terminal obeys or cannot show: C0 and C1 but newline and tab, marks of direction, halves of characters.
HOSTILE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
NO_NUMBER = re.compile(r"(?<![A-Za-z/\\'\"])(?:nan|inf)(?![A-Za-z'\"])")
FOR_PEOPLE = (".csv", ".svg", ".html", ".md", ".log")
_SHELL = ("COLUMNS", "LINES", "FORCE_COLOR", "XDG_CACHE_HOME", "HF_TOKEN", "RANK", "WORLD_SIZE")


class Hang(BaseException):
    """The example has used up its time."""


@dataclass(frozen=True)
class Example:
    """`words` of the command line in the world of fuzz.world with `files` changed (None: taken away).

    `real` names jobs that are not answered by a fake; with `may_crash` one of them may end by an exception, for which
    the record gets a row.
    """

    verb: str
    words: tuple[str, ...]
    files: dict[str, bytes | None] = field(default_factory=dict)
    encoding: str = "utf-8"
    real: tuple[str, ...] = ()
    may_crash: bool = False


@dataclass(frozen=True)
class Fault:
    """`cause` tells faults apart: examples with the same one show the same fault."""

    cause: str
    detail: str


@dataclass
class End:
    code: int | None
    out: str
    err: str
    problem: BaseException | None = None
    died: list[str] = field(default_factory=list)


class World:
    """The folder that examples run in, always under the same path, for paths are part of a record's keys."""

    def __init__(self, folder: Path):
        self.folder, self.base = folder / "world", folder / "base"
        self._read: dict[str, dict[str, bytes]] = {}
        self.base.mkdir(parents=True)
        with self._inside():
            world.make(self.folder)
            # Record and caches as the verbs write them.
            for words in (
                ("bench", "bare", f"./{world.MODEL}", "--precisions", "fp32 bf16", "--results", world.RESULTS),
                ("ttft", f"./{world.MODEL}", "--project-to", "30", "--results", world.RESULTS),
                ("calibrate", "--results", world.RESULTS),
                world.SOLVED,
                ("import-log", "logs/trainer_state.json", *world.IMPORT, "--results", "imported"),
                ("pick", "--results", world.RESULTS, "--emit", world.RECIPE),
            ):
                end = self._end(Example("base", words))
                assert end.code == 0, end
            # The caches of real training, and a checkpoint, which is kept as if killed before the row was written.
            with mock.patch("harness.tune.run.discard", lambda folder, key: None):
                end = self._end(Example("base", world.TUNE, real=(world.TRAINS,)))
            assert end.code == 0, end
            (self.folder / "tuned" / "accuracy.jsonl").unlink()
            # A record to compare with, of another day: a copy is not judged.
            shutil.copytree(self.folder / world.RESULTS, self.folder / world.EARLIER)
            for path in (self.folder / world.EARLIER).glob("*.jsonl"):
                rows = [{**json.loads(line), "started": EARLIER_DAY} for line in path.read_text().splitlines()]
                path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            shutil.copytree(self.folder, self.base, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".tmp"))

    def read(self, pattern: str) -> dict[str, bytes]:
        """The base's files that `pattern` matches, by path."""
        if pattern not in self._read:
            found = sorted(path for path in self.base.glob(pattern) if path.is_file())
            self._read[pattern] = {str(path.relative_to(self.base)): path.read_bytes() for path in found}
        return self._read[pattern]

    def run(self, example: Example) -> tuple[End, list[Fault]]:
        """How the example ended, and what is wrong with that."""
        with self._inside():
            shutil.copytree(self.base, self.folder, dirs_exist_ok=True)
            for name, content in example.files.items():
                _put(self.folder / name, content)
            end = self._end(example)
            return end, list(faults(example, end, self))

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """An empty folder to be in, with home, caches and temporary files inside it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        before = Path.cwd()
        home, temporary = self.folder / ".home", self.folder / ".tmp"
        for path in (home, temporary):
            path.mkdir(parents=True)
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(self.folder.parent / "inductor"))
        places = {"HOME": home, "HF_HOME": home / "hf", "TTFT_BENCH_CACHE": self.folder / "cache", "TMPDIR": temporary}
        kept = {name: value for name, value in os.environ.items() if name not in _SHELL}
        os.chdir(self.folder)
        try:
            with (
                mock.patch.dict(os.environ, {**kept, **{k: str(v) for k, v in places.items()}}, clear=True),
                mock.patch.object(tempfile, "tempdir", str(temporary)),
                mock.patch("huggingface_hub.constants.HF_HUB_OFFLINE", True),
                mock.patch("harness.network.reachable", lambda *_: False),
                mock.patch("harness.measure.quiet.WAIT_S", 0.0),  # whatever else runs here
                mock.patch("harness.train.ops.autoselect.measure", world.kernel_timings),
            ):
                yield
        finally:
            os.chdir(before)

    def _end(self, example: Example) -> End:
        from harness.cli import app
        from harness.report.page import figures

        out, err = (
            io.TextIOWrapper(io.BytesIO(), encoding=example.encoding, errors=errors, write_through=True)
            for errors in ("strict", "backslashreplace")
        )
        code, problem = None, None
        # Pictures take long to draw: only where the page is what is asked for.
        families = figures.FAMILIES if example.words[:1] == ("report",) else ()
        pictures = mock.patch.object(figures, "FAMILIES", families)
        with (
            pictures,
            world.workers(example.real) as died,
            _limited(),
            mock.patch.multiple(sys, stdout=out, stderr=err),
        ):
            try:
                app.main(list(example.words))
                code = 0
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
            except BaseException as stop:
                problem = stop
        texts = [stream.buffer.getvalue().decode(example.encoding, "surrogatepass") for stream in (out, err)
                 if not stream.closed]  # fmt: skip
        return End(code, texts[0], texts[-1], problem, died)


def _put(path: Path, content: bytes | None) -> None:
    """Nothing, a folder, a link to itself, or a file with `content` at `path`, whatever is there."""
    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    if content == FOLDER:
        path.mkdir()
    elif content == LOOP:
        path.symlink_to(path.name)
    elif content is not None:
        path.write_bytes(content)


@contextmanager
def _limited() -> Iterator[None]:
    """Raises Hang after SECONDS of this process's own time, however busy the machine is."""

    def stop(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def faults(example: Example, end: End, at: World) -> Iterator[Fault]:
    verb = example.words[0] if example.words else "no verb"
    if end.problem is not None:
        yield Fault(f"{verb}: {type(end.problem).__name__} at {world.place_of(end.problem)}", _short(end.problem))
        return
    for message in () if example.may_crash else end.died:
        job, _, what = message.partition(": ")
        yield Fault(f"{verb}: {job.partition(':')[2]} died: {what.partition(': ')[0][:80]}", message)
    if end.code not in CODES:
        yield Fault(f"{verb}: exit code {end.code}", end.err[-300:])
    if "Traceback (most recent call last)" in end.out + end.err:
        yield Fault(f"{verb}: prints a traceback", end.err[-300:])
    lines = end.err.splitlines()
    if end.code == 2:
        if not lines or not lines[-1].startswith("error: ") or sum(line.startswith("error: ") for line in lines) != 1:
            yield Fault(f"{verb}: code 2 without its one line", end.err[-300:])
        elif len(lines[-1]) > LONGEST_LINE:
            yield Fault(f"{verb}: a message of over {LONGEST_LINE} letters", f"{len(lines[-1])}: {lines[-1][:200]}")
    for stream, text in (("stdout", end.out), ("stderr", end.err)):
        if raw := HOSTILE.search(text):
            around = text[max(0, raw.start() - 60) : raw.end() + 30]
            yield Fault(f"{verb}: {raw[0]!r} on {stream}", repr(around))
    # A loss may be infinite; hours and bytes may not.
    named = " ".join(example.words)  # a file may be called so
    if (
        end.code == 0
        and example.verb != "accuracies"
        and (number := NO_NUMBER.search(end.out))
        and number[0] not in named
    ):
        yield Fault(f"{verb}: shows {number[0]}", end.out[max(0, number.start() - 150) : number.end() + 50])
    yield from _files(verb, example, at)


def _files(verb: str, example: Example, at: World) -> Iterator[Fault]:
    # What these name is written, whatever was there; solve writes a submission in any case.
    outputs = {after for before, after in pairwise(example.words) if before in ("--csv", "--out", "--emit", "--html")}
    outputs |= {"submission.json"} if example.words[:1] == ("solve",) else set()
    for name, content in {**at.read("*.yaml"), **at.read("*.json"), **at.read("tasks/*"), **at.read("m/*")}.items():
        expected = example.files.get(name, content)
        path = at.folder / name
        if expected in (None, FOLDER, LOOP) or name in outputs:
            continue
        if not path.exists() or path.read_bytes() != expected:
            yield Fault(f"{verb}: changes its input {Path(name).name}", name)
    # Good rows: those of the base that the example left as they were.
    for name, content in at.read("*/**/*.jsonl").items():
        before = example.files.get(name, content)
        if before is None:
            continue
        good = set(content.split(b"\n")) & set(before.split(b"\n"))
        path = at.folder / name
        if lost := good - set(path.read_bytes().split(b"\n") if path.is_file() else ()):
            yield Fault(f"{verb}: loses rows of {path.name}", f"{len(lost)} of {len(good)}")
    for path in at.folder.rglob("*"):
        if path.suffix in FOR_PEOPLE and path.is_file() and str(path.relative_to(at.folder)) not in example.files:
            text = path.read_bytes().decode("utf-8", "replace").replace("\r\n", "\n")
            if raw := HOSTILE.search(text):
                yield Fault(f"{verb}: {raw[0]!r} in a {path.suffix} file", repr(text[max(0, raw.start() - 60) :][:90]))


def _short(problem: BaseException) -> str:
    return f"{type(problem).__name__}: {str(problem)[:200]!r}"
