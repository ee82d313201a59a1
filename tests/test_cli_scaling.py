"""Bad input about clusters and shares, through the command line: one line that says what to do, and exit code 2."""

import subprocess
import sys
from dataclasses import replace

import pytest
from helpers.records import row

from harness.cli import app, parse
from harness.records.store import Store


@pytest.fixture
def refused(capsys):
    """The message that a command ends with; nothing else is said."""

    def run(*words):
        with pytest.raises(SystemExit) as end:
            app.main(list(words))
        printed = capsys.readouterr()
        assert end.value.code == 2 and not printed.out
        (line,) = printed.err.splitlines()
        assert line.startswith("error: ")
        return line

    return run


VERBS = (["bench", "qwen-0.5b"], ["ttft", "arc-tiny"], ["solve", "arc-tiny", "--tasks", "generated"])


@pytest.mark.parametrize("verb", VERBS, ids=lambda words: words[0])
def test_every_verb_says_what_a_cluster_lacks(refused, verb, monkeypatch):
    assert "--ray 127.0.0.1:1: does not answer" in refused(*verb, "--ray", "127.0.0.1:1")
    assert "--on chooses cards of a Ray cluster; it goes with --ray" in refused(*verb, "--on", "t4")
    assert "--device cuda:1 names a card of this machine" in refused(*verb, "--ray", "--device", "cuda:1")
    assert "--shard must be i/n" in refused(*verb, "--shard", "3/2")
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "pip install 'ttft-bench[ray]'" in refused(*verb, "--ray")


@pytest.mark.parametrize("host", ["10.0.0.1", "localhost", "head:"])
def test_an_address_without_its_port_is_no_model(refused, host):
    words = refused("bench", "--ray", host, "qwen-0.5b")
    assert f"--ray {host}: an address is HOST:PORT" in words
    assert parse.ray_words(["--ray", "qwen2.5-0.5b"]) == ["--ray", "local", "qwen2.5-0.5b"]


def test_a_step_over_several_cards_does_not_go_with_a_cluster(refused):
    assert "--gpus shares a step among cards of one machine" in refused("bench", "qwen-0.5b", "--ray", "--gpus", "2")


def test_an_array_with_gaps_is_refused(refused, monkeypatch):
    for name, value in {"ID": "9", "MIN": "1", "COUNT": "4"}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    assert "an array with gaps, or a part of one; name the share with --shard i/n" in refused("bench", "qwen-0.5b")


def test_folders_of_another_rule_or_device_are_not_merged(refused, tmp_path):
    ours, older, other = (Store(tmp_path / name) for name in ("ours", "older", "other"))
    ours.add(row(key="1"))
    older.add(replace(row(key="2"), rule=1))
    made = row(key="3")
    other.add(replace(made, cell=replace(made.cell, device_name="Tesla T4")))
    into = str(tmp_path / "all")
    assert "has rows of older rules alone" in refused("merge", str(ours.folder), str(older.folder), "--into", into)
    assert "a record is of one device" in refused("merge", str(ours.folder), str(other.folder), "--into", into)
    assert "has no record" in refused("merge", str(tmp_path / "none"), "--into", into)
    assert not (tmp_path / "all").exists()


def test_without_ray_nothing_of_it_is_imported():
    """Also where it is there, and all that could need it is loaded."""
    modules = "harness.cli.app, harness.pipeline, harness.tune.run, harness.solve.run"
    program = f"import sys, {modules}; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
