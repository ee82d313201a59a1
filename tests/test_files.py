"""Files are replaced whole or not at all, and nothing is left of an attempt that failed."""

import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from harness import files
from harness.errors import UserError


@pytest.mark.parametrize(("content", "stored"), [("é\r\n", "é\r\n".encode()), (b"\x00\xff", b"\x00\xff")])
def test_the_content_replaces_the_old_one(tmp_path, content, stored):
    path = tmp_path / "a.txt"
    path.write_text("old")
    files.replace_atomically(path, content)
    assert path.read_bytes() == stored
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_of_the_old_file_keeps_it(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with path.open() as reader:
        files.replace_atomically(path, "new")
        assert reader.read() == "old"


def test_others_may_read_it_as_any_file_of_the_user(tmp_path):
    (tmp_path / "usual").write_text("")
    files.replace_atomically(tmp_path / "a", "")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("usual", "a")]
    assert modes[0] == modes[1]


def test_a_folder_is_made_if_that_is_wanted(tmp_path):
    path = tmp_path / "new" / "folder" / "a"
    with pytest.raises(UserError, match="cannot be written"):
        files.replace_atomically(path, "a")
    assert not list(tmp_path.iterdir())
    files.replace_atomically(path, "a", make_folder=True)
    assert path.read_text() == "a"


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "a"
    path.mkdir()
    with pytest.raises(UserError, match=r"a: cannot be written \(Is a directory\); name a folder that can be, or make"):
        files.replace_atomically(path, "new")
    assert path.is_dir() and list(tmp_path.iterdir()) == [path]


KILLED = """
import os, signal, sys
from pathlib import Path
from harness import files
os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
files.write_output(Path(sys.argv[1]), "half")
"""


def test_what_a_killed_process_left_goes_at_the_next_write(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("old")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=Path(__file__).parents[1])
    assert killed.returncode == -signal.SIGKILL and path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2
    # Another's file stays, whatever its name is like.
    (tmp_path / ".b.csv.abcdefgh.ttft-bench.tmp").write_text("")
    (tmp_path / ".a.csv.abcdefgh.tmp").write_text("")
    files.write_output(path, "new")
    assert path.read_text() == "new"
    assert {p.name for p in tmp_path.iterdir()} == {"a.csv", ".b.csv.abcdefgh.ttft-bench.tmp", ".a.csv.abcdefgh.tmp"}


def test_what_another_process_is_writing_just_now_stays(tmp_path, monkeypatch):
    """One writer within the other, between its last byte and its rename; and one between making its file and its lock,
    whose file is taken for abandoned."""
    path, real = tmp_path / "a", os.fsync

    def meanwhile(handle):
        monkeypatch.setattr(os, "fsync", real)
        files.write_output(path, "inner")
        assert path.read_text() == "inner"
        real(handle)

    monkeypatch.setattr(os, "fsync", meanwhile)
    files.write_output(path, "outer")
    assert path.read_text() == "outer" and list(tmp_path.iterdir()) == [path]
    lock = fcntl.flock

    def before_its_lock(handle, how):
        monkeypatch.setattr(fcntl, "flock", lock)
        files.write_output(path, "inner")
        lock(handle, how)

    monkeypatch.setattr(fcntl, "flock", before_its_lock)
    files.write_output(path, "outer")
    assert path.read_text() == "outer" and list(tmp_path.iterdir()) == [path]


def test_what_the_cache_cannot_take_is_had_again(tmp_path, monkeypatch):
    monkeypatch.setenv("TTFT_BENCH_CACHE", str(tmp_path / "cache"))
    files.write_cache("traces/a.json", {"a": [1, 2.5]})
    assert files.read_cache("traces/a.json", dict) == {"a": [1, 2.5]}
    (tmp_path / "cache" / "traces" / "a.json").write_text('{"a": [1,')
    assert files.read_cache("traces/a.json", dict) is None
    (tmp_path / "cache" / "file").write_text("")
    files.write_cache("file/b.json", 1)
    assert files.read_cache("file/b.json", dict) is None


def _replaces_nothing(path, write):
    with pytest.raises(UserError, match="no regular file"):
        write(path)


def test_a_link_or_a_pipe_is_never_replaced(tmp_path):
    (tmp_path / "target").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        _replaces_nothing(tmp_path / name, lambda path: files.replace_atomically(path, "new"))
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_text() == "mine"
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_output_goes_through_a_link_into_its_file(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    files.write_output(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_text() == "new"
    (tmp_path / "dangling").symlink_to(tmp_path / "none")
    with pytest.raises(UserError, match="link to nothing"):
        files.write_output(tmp_path / "dangling", "new")


def test_output_goes_into_a_pipe(tmp_path):
    pipe, received = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    files.write_output(pipe, "x" * 200_000)
    reader.join(30)
    assert received == [b"x" * 200_000]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_pipe_that_nobody_reads_is_an_error_and_no_hang(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_READER_WITHIN_S", 0.1)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="cannot be written"):
        files.write_output(tmp_path / "pipe", "x")


def test_output_goes_into_what_a_file_descriptor_names(tmp_path):
    with (tmp_path / "out").open("w+b") as out:
        files.write_output(Path(f"/dev/fd/{out.fileno()}"), "a,b")
    assert (tmp_path / "out").read_text() == "a,b"


def test_nobody_can_prepare_the_temporary_file(tmp_path, monkeypatch):
    """Whatever lies there already is neither used nor changed: names are drawn until one is new."""
    names = iter(["a", "a", "b"])
    monkeypatch.setattr(files.tempfile, "_get_candidate_names", lambda: names)
    (tmp_path / "target").write_text("mine")
    (tmp_path / ".x.a.tmp").symlink_to(tmp_path / "target")
    files.replace_atomically(tmp_path / "x", "new")
    assert (tmp_path / "x").read_text() == "new" and (tmp_path / "target").read_text() == "mine"


@pytest.mark.parametrize(
    "text", ["[" * 70 + "]" * 70, "[" * 100_000, '{"a":' * 99 + "1" + "}" * 99, "{", "9" * 5000, ""]
)
def test_json_that_cannot_be_walked_is_none(text):
    for form in (text, text.encode()):
        with pytest.raises(ValueError, match=r"."):
            files.parse_json(form)


def test_json_of_any_width_is_read():
    assert files.parse_json(json.dumps([[1, {"a": [2]}]] * 5000))[4999] == [1, {"a": [2]}]
    assert files.parse_json('"[[[[' + "[" * 99 + '"') == "[[[[" + "[" * 99


def test_a_file_too_large_is_not_read_whole():
    with pytest.raises(OSError, match="more than"):
        files.read_bytes(Path("/dev/zero"), 1 << 20)


def test_the_home_folder_is_written_short_and_found_again(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.home_relative(tmp_path / "a" / "b") == "~/a/b"
    assert files.user_path("~/a/b") == tmp_path / "a" / "b"
    assert files.home_relative(Path("/elsewhere")) == "/elsewhere"
    assert files.home_relative(Path(f"{tmp_path}x/a")) == f"{tmp_path}x/a"
    with pytest.raises(UserError, match="no such user"):
        files.user_path("~nosuchuser-1/x")
