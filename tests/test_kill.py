"""A few kills of what `make kill` kills often: whenever a run is killed, the next one ends as if nobody had."""

import random

import pytest
from helpers import killed

from bench.kill import Killer


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    killed.share(folder)
    return folder


@pytest.mark.parametrize(("verb", "kills"), [("sweep", 3), ("store", 2), ("compare", 2), ("solve", 2), ("tune", 1)])
def test_killed_at_random_moments_nothing_is_lost_torn_or_doubled(tmp_path, shared, verb, kills):
    # A machine that is busy with other tests may let a worker wait.
    tally = Killer(verb, tmp_path, shared, within_s=20.0).kill(kills, random.Random(verb))
    assert tally.wrong == []
    assert tally.kills == kills and tally.runs >= 1


def test_every_verb_of_the_table_is_killed_here():
    marks = test_killed_at_random_moments_nothing_is_lost_torn_or_doubled.pytestmark
    assert {verb for mark in marks for verb, _ in mark.args[1]} == set(killed.VERBS)


def test_what_was_lost_torn_or_doubled_is_seen(tmp_path):
    """The comparison itself: a row left out, one that is written twice, and half a line."""
    killed.store(tmp_path, tmp_path)
    rows, wrong = killed.rows_of("store", tmp_path)
    assert len(rows) == 3 * killed.ROWS and not wrong
    path = tmp_path / "results" / "records.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[1:], lines[5], lines[6][:40] + b"\n"]))
    fewer, wrong = killed.rows_of("store", tmp_path)
    assert set(rows) - set(fewer) == {"m0"}
    assert len(wrong) == 2 and "m5 twice" in wrong[0] and "torn" in wrong[1]
