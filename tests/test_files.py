"""Files are replaced whole or not at all, and nothing is left of an attempt that failed."""

import stat

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


def test_what_the_cache_cannot_take_is_had_again(tmp_path, monkeypatch):
    monkeypatch.setenv("TTFT_BENCH_CACHE", str(tmp_path / "cache"))
    files.write_cache("traces/a.json", {"a": [1, 2.5]})
    assert files.read_cache("traces/a.json", dict) == {"a": [1, 2.5]}
    (tmp_path / "cache" / "traces" / "a.json").write_text('{"a": [1,')
    assert files.read_cache("traces/a.json", dict) is None
    (tmp_path / "cache" / "file").write_text("")
    files.write_cache("file/b.json", 1)
    assert files.read_cache("file/b.json", dict) is None
