"""Logs of workers hold what models, libraries and data sets print; whoever shows one must see it, not obey it."""

import sys

import pytest

from harness.workers.local import LocalExecutor, RunLimits
from harness.workers.logs import last_line, make_visible

EVIL = "\x1b]0;title\x07 \x1b[2J \u202eabc \x00 \x9b31m"


def run(log, code):
    return LocalExecutor((sys.executable, "-c", code)).run("job", {}, RunLimits(log=log, timeout_s=60))


def test_control_characters_of_a_worker_are_written_out_when_it_has_ended(tmp_path):
    log = tmp_path / "log"
    code = f"import os; os.write(2, 'tab\\there\\n'.encode() + {EVIL!r}.encode() + b'\\xff half\\r\\n1 %\\r2 %\\n')"
    outcome = run(log, code)
    assert outcome.status == "crashed"
    text = log.read_bytes().decode("ascii")
    assert text.startswith("tab\there\n") and text.endswith("\n1 %\n2 %\n")
    assert "\\x1b]0;title\\x07" in text and "\\u202e" in text and "\\x00" in text and "\\xff half" in text
    assert all(c in "\n\t" or c.isprintable() for c in text)
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_the_reason_of_a_crash_is_visible_too(tmp_path):
    outcome = run(tmp_path / "log", f"raise RuntimeError({EVIL!r})")
    assert outcome.reason.startswith("RuntimeError: \\x1b]0;title") and outcome.reason.isprintable()


def test_a_log_without_such_characters_is_not_written_again(tmp_path):
    log = tmp_path / "log"
    log.write_text("Traceback\n\ttwo ± lines\n", encoding="utf-8")
    before = log.stat().st_ino
    make_visible(log)
    assert log.stat().st_ino == before and log.read_text(encoding="utf-8") == "Traceback\n\ttwo ± lines\n"


def test_a_link_in_the_logs_of_a_folder_from_elsewhere_is_not_written_through(tmp_path):
    victim, log = tmp_path / "victim", tmp_path / "log"
    victim.write_text("precious")
    log.symlink_to(victim)
    log.with_name("log.part").symlink_to(victim)
    run(log, "import sys; sys.stderr.write('\\x1b[2J')")
    assert victim.read_text() == "precious"
    assert log.read_text() == "\\x1b[2J" and not log.is_symlink()


@pytest.mark.parametrize(("text", "line"), [("", ""), ("a\n\n b \n\n", " b "), ("x" * 200_000, "x" * 300)])
def test_the_last_line(tmp_path, text, line):
    (tmp_path / "log").write_text(text)
    assert last_line(tmp_path / "log") == line


def test_a_child_whose_log_was_removed_while_it_ran_has_failed_without_a_reason(tmp_path):
    log = tmp_path / "log"
    outcome = run(log, f"import os; os.unlink({str(log)!r}); os._exit(3)")
    assert outcome.status == "crashed" and not log.exists()
