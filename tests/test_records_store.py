import errno
import json
import os
import subprocess
import sys

import pytest
from helpers.records import row

from harness.errors import UserError
from harness.records.measurement import to_json
from harness.records.store import MEASUREMENTS, Store, latest_folder, read, slug


def test_rows_come_back_equal(tmp_path):
    store = Store(tmp_path / "new" / "folder")
    rows = [row(), row(status="oom", reason="big"), row(losses=(1.0, float("inf")))]
    for r in rows:
        store.add(r)
    assert list(store.rows().values()) == rows
    assert store.repair() == 0


def test_the_newest_row_of_a_key_counts(tmp_path):
    store = Store(tmp_path)
    for reason in ("a", "b"):
        store.add(row(status="oom", key="k", reason=reason))
    assert [r.reason for r in read(store.path)[0]] == ["b"]


def test_rows_of_an_older_rule_stay_but_do_not_count(tmp_path):
    store = Store(tmp_path)
    store.add(row(rule=0))
    assert read(store.path) == ([], 0)
    assert store.repair() == 0
    assert len(store.path.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    "bad", ["{torn", "null", "[]", "7", '{"kind": "measurement"}', '{"cell": {}, "key": 1}', "\x00\x01", '{"cell": 3}']
)
def test_a_corrupt_line_is_kept_aside(tmp_path, bad):
    store = Store(tmp_path)
    first, last = row(key="a"), row(key="b")
    store.add(first)
    with store.path.open("a") as f:
        f.write(bad + "\n")
    store.add(last)
    assert read(store.path)[1] == 1
    assert store.repair() == 1
    assert (tmp_path / MEASUREMENTS.aside).read_text() == bad + "\n"
    assert list(store.rows().values()) == [first, last]
    assert read(store.path)[1] == 0


def test_a_torn_end_does_not_take_the_next_row_with_it(tmp_path):
    """Killed while it wrote: half a line and no end of line."""
    store = Store(tmp_path)
    store.add(row(key="a"))
    whole = store.path.read_bytes()
    store.path.write_bytes(whole + whole[:100])
    store.add(row(key="b"))
    assert set(store.rows()) == {"a", "b"}
    assert store.repair() == 1


def test_every_cut_of_the_file_loses_at_most_the_last_row(tmp_path):
    store = Store(tmp_path)
    for key in "abc":
        store.add(row(key=key))
    whole = store.path.read_bytes()
    for cut in range(0, len(whole), 37):
        store.path.write_bytes(whole[:cut])
        kept = whole[:cut].count(b"\n")
        assert kept <= len(read(store.path)[0]) <= kept + 1


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path):
    written = []

    def full(handle, data):
        if written:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(os.write(handle, data[:10]))
        return written[0]

    store = Store(tmp_path)
    store.add(row(key="a"))
    before = store.path.read_bytes()
    with pytest.raises(UserError, match="disk is full; every earlier row is safe"):
        Store(tmp_path, write=full).add(row(key="b"))
    assert store.path.read_bytes() == before


def test_short_writes_are_continued(tmp_path):
    store = Store(tmp_path, write=lambda handle, data: os.write(handle, data[:7]))
    store.add(row(key="a"))
    assert set(store.rows()) == {"a"}


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--results"):
        Store(tmp_path / "file" / "folder")


def test_processes_that_add_at_once_tear_nothing(tmp_path):
    """Four processes add fifty rows each to one file."""
    store = Store(tmp_path)
    line = json.dumps(to_json(row()))
    code = (
        "import sys, json; from dataclasses import replace; from pathlib import Path\n"
        "from harness.records.store import Store; from harness.records.measurement import from_json\n"
        "store, r = Store(Path(sys.argv[1])), from_json(json.loads(sys.argv[3]))\n"
        "for i in range(50): store.add(replace(r, key=f'{sys.argv[2]}-{i}'))"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(n), line]) for n in range(4)]
    assert [process.wait(60) for process in started] == [0] * 4
    assert len(store.rows()) == 200
    assert store.repair() == 0


def test_slugs_stay_inside_the_folder():
    assert slug("../../A [red]CPU/…") == "a-red-cpu"
    assert slug("///") == "device"


def test_latest_folder(tmp_path):
    with pytest.raises(UserError, match="harness bench"):
        latest_folder(tmp_path)
    for i, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "records.jsonl").touch()
        os.utime(tmp_path / name / "records.jsonl", (i, i))
    assert latest_folder(tmp_path).name == "b"
