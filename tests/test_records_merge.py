"""Merging records: the same row once, conflicts named, what is not alike refused."""

from dataclasses import replace

import pytest
from helpers.records import cell, result, row

from harness.errors import UserError
from harness.records import arm
from harness.records.cell import MEASURING_RULE
from harness.records.merge import merge
from harness.records.store import Store


@pytest.fixture
def folder(tmp_path):
    def made(name, *rows, results=()):
        store = Store(tmp_path / name)
        for each in rows:
            store.add(each)
        for each in results:
            Store(tmp_path / name, kind=arm.ROWS).add(each)
        return tmp_path / name

    return made


def keys(path):
    return sorted(Store(path).rows())


def test_shards_become_one_record_and_merging_again_changes_nothing(folder, tmp_path):
    a = folder("a", row(key="1"), row(key="2"), results=[result(3, arm="n-1")])
    b = folder("b", row(key="2"), row(key="3"), results=[result(4, arm="n-2")])
    into = tmp_path / "all"
    merged = merge([a, b], into)
    assert keys(into) == ["1", "2", "3"] and (merged.added, merged.same, merged.conflicts) == (5, 1, [])
    assert {each.arm for each in Store(into, kind=arm.ROWS).rows().values()} == {"n-1", "n-2"}
    before = (into / "records.jsonl").read_bytes(), (into / "accuracy.jsonl").read_bytes()
    merged = merge([b, a], into)
    assert (merged.added, merged.same, merged.conflicts) == (0, 6, [])
    assert ((into / "records.jsonl").read_bytes(), (into / "accuracy.jsonl").read_bytes()) == before
    # Into one of them too.
    merge([b], a)
    assert keys(a) == ["1", "2", "3"]


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_of_two_measurements_the_later_one_stays_and_both_are_named(folder, tmp_path, order):
    early, late = (row((s,) * 12, key="1", started=f"2026-01-0{s}T00:00:00+00:00") for s in (1, 2))
    folder("a", early), folder("b", late)
    merged = merge([tmp_path / name for name in order], tmp_path / "all")
    assert Store(tmp_path / "all").rows()["1"].micro_s[0] == 2
    (text,) = merged.conflicts
    assert "tiny fp32 1024" in text and f"that of {tmp_path / 'a'} is left out" in text


def test_a_row_that_went_well_stays_before_a_later_failure(folder, tmp_path):
    good = row(key="1", started="2026-01-01T00:00:00+00:00")
    folder("a", good), folder("b", row(key="1", status="crashed", started="2026-01-02T00:00:00+00:00"))
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "all")
    assert Store(tmp_path / "all").rows()["1"].ok


def test_folders_of_other_rules_or_devices_or_without_a_record_are_refused(folder, tmp_path):
    ours, older = folder("ours", row(key="1")), folder("older", replace(row(key="2"), rule=1))
    later = folder("later", row(key="4"), replace(row(key="5"), rule=MEASURING_RULE + 1))
    other = folder("other", row(key="3", cell=cell(device_name="Tesla T4")))
    (tmp_path / "empty").mkdir()
    into = tmp_path / "all"
    for folders, words in (
        ([ours, older], "has rows of older rules alone"),
        ([ours, later], "has rows of a later version's rule"),
        ([ours, other], "a record is of one device"),
        ([ours, tmp_path / "empty"], "has no record"),
        ([tmp_path / "none"], "has no record"),
    ):
        with pytest.raises(UserError, match=words):
            merge(folders, into)
    assert not into.exists()


def test_corrupt_lines_are_left_out_and_counted(folder, tmp_path):
    a = folder("a", row(key="1"))
    with (a / "records.jsonl").open("a") as file:
        file.write("half a li")
    merged = merge([a], tmp_path / "all")
    assert merged.corrupt == 1 and keys(tmp_path / "all") == ["1"]


def test_rows_of_older_rules_are_left_out_and_counted_and_the_folders_own_stay(folder, tmp_path):
    a = folder("a", replace(row(key="1"), rule=1), row(key="2"))
    into = folder("all", replace(row(key="3"), rule=1))
    before = (into / "records.jsonl").read_bytes()
    merged = merge([a], into)
    assert (merged.added, merged.older) == (1, 1) and keys(into) == ["2"]
    assert (into / "records.jsonl").read_bytes().startswith(before)
    after = (into / "records.jsonl").read_bytes()
    assert merge([a], into).same == 1 and (into / "records.jsonl").read_bytes() == after


def test_corrupt_lines_of_the_folder_itself_go_to_the_file_beside_it(folder, tmp_path):
    a, into, notes = folder("a", row(key="1")), folder("all", row(key="2")), []
    with (into / "records.jsonl").open("a") as file:
        file.write("half a li")
    merge([a], into, notes.append)
    assert keys(into) == ["1", "2"] and (into / "records.corrupt.jsonl").read_text() == "half a li\n"
    assert "1 corrupt lines" in notes[0]
