import errno
import json
import os
import subprocess
import sys

import pytest
from helpers.records import cell, row

from harness.errors import UserError
from harness.records.cell import MEASURING_RULE
from harness.records.measurement import to_json
from harness.records.store import MEASUREMENTS, LeftOut, Store, latest_folder, read, slug


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
    assert read(store.path) == ([], LeftOut(older=1))
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
    assert read(store.path)[1].corrupt == 1
    assert store.repair() == 1
    assert (tmp_path / MEASUREMENTS.aside).read_text() == bad + "\n"
    assert list(store.rows().values()) == [first, last]
    assert read(store.path)[1].corrupt == 0


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


def _spoiled(*path, to):
    raw = to_json(row())
    *way, last = path
    place = raw
    for step in way:
        place = place[step]
    place[last] = to
    return raw


IMPOSSIBLE = [
    (("key",), [1]),
    (("cell", "context"), -5),
    (("cell", "context"), "many"),
    (("cell", "recipe", "lora_r"), 10**30),
    (("cell", "recipe", "lora_dropout"), 1.5),
    (("cell", "recipe", "sequences_per_step"), 0),
    (("cell", "recipe", "micro_batch"), 64),
    (("cell", "model", "name"), {}),
    (("cell", "model", "window"), 0),
    (("micro_s",), []),
    (("micro_s",), [0, 0, 0]),
    (("micro_s",), [1.0, float("nan")]),
    (("micro_s",), [float("inf")]),
    (("micro_s",), [-1.0]),
    (("micro_s",), [1e308]),
    (("optimizer_s",), []),
    (("load_s",), -1.0),
    (("load_s",), "1 s"),
    (("params",), -7),
    (("memory",), []),
    (("memory",), {"steady": {"resident": -1}}),
    (("rate", "forward"), 0.0),
    (("work", "forward_linear"), float("nan")),
    (("device_total_bytes",), 10**30),
    (("status",), "splendid"),
    (("versions",), {"torch": 2}),
]


@pytest.mark.parametrize(("path", "value"), IMPOSSIBLE, ids=str)
def test_a_row_with_a_value_that_nothing_can_have_measured_is_put_aside(tmp_path, path, value):
    store = Store(tmp_path)
    store.add(row(key="good"))
    with store.path.open("a") as file:
        file.write(json.dumps(_spoiled(*path, to=value)) + "\n")
    assert (list(store.rows()), read(store.path)[1].corrupt) == (["good"], 1)
    notes = []
    assert store.repair(notes.append) == 1
    assert "1 corrupt lines" in notes[0]
    assert list(store.rows()) == ["good"]


@pytest.mark.parametrize("bad", ["[" * 100_000, '{"a":' * 200 + "1" + "}" * 200, "9" * 5000, '"\\ud800"'])
def test_deep_and_huge_lines_are_corrupt_too(tmp_path, bad):
    store = Store(tmp_path)
    store.add(row(key="good"))
    with store.path.open("a") as file:
        file.write(bad + "\n")
    assert (list(store.rows()), read(store.path)[1].corrupt) == (["good"], 1)


def test_rows_of_a_later_version_stay_as_they_are_and_are_not_corrupt(tmp_path):
    """With fields and statuses that this version does not know."""
    store = Store(tmp_path)
    store.add(row(key="good"))
    later = to_json(row(key="later")) | {"rule": MEASURING_RULE + 1, "status": "throttled", "watts": 300}
    known = to_json(row(key="known")) | {"watts": 300}
    known["cell"] |= {"moon": "full"}
    lines = [json.dumps(later), json.dumps(known)]
    with store.path.open("a") as file:
        file.write("\n".join([*lines, "{torn"]) + "\n")
    assert (sorted(store.rows()), read(store.path)[1]) == (["good", "known"], LeftOut(corrupt=1, later=1))
    assert store.repair() == 1
    assert store.path.read_text().splitlines()[1:] == lines


def test_rows_of_older_rules_are_counted_unless_the_same_was_measured_again(tmp_path):
    store = Store(tmp_path)
    for key, rule, context in (("a", 2, 512), ("b", 2, 1024), ("b", 2, 1024), ("new", MEASURING_RULE, 512)):
        store.add(row(key=key, rule=rule, cell=cell(context=context)))
    rows, left_out = read(store.path)
    assert [own.key for own in rows] == ["new"] and left_out == LeftOut(older=1)
    assert left_out.sentences("x")[0].startswith("1 rows of older rules of x were left out: measure them again")


def test_a_record_does_not_say_whose_home_it_comes_from(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    store = Store(tmp_path / "results")
    where = str(tmp_path / "home" / "models" / "m")
    store.add(row(status="unsupported", reason=f"weights at {where} do not load", cell=cell(weights="~/models/m")))
    assert str(tmp_path / "home") not in store.path.read_text()
    (kept,) = store.rows().values()
    assert kept.reason == "weights at ~/models/m do not load"
    assert kept.cell.key({}) == cell(weights=where).key({})  # as rows from before have it


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/full")])
def test_what_is_no_file_of_the_records_is_neither_waited_for_nor_written(tmp_path, make):
    path = tmp_path / "records.jsonl"
    make(path)
    with pytest.raises(UserError, match="cannot be written"):
        Store(tmp_path)
    with pytest.raises(OSError, match=r"regular file"):
        read(path)


def test_a_link_leads_nowhere(tmp_path):
    """In a folder from elsewhere it may name any file of the user's."""
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "records.jsonl").symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match="cannot be written"):
        Store(tmp_path)
    assert (tmp_path / "mine").read_text() == "mine"
