"""Texts that are no logs, and those that would take long to read."""

import math
import time

import pytest

from harness.errors import UserError
from harness.logs.logged import count, positive
from harness.logs.notebook import read_notebook
from harness.logs.reading import read_log

SIZE = 600_000  # characters
HOSTILE = {
    "a line of beginnings": "Running training *" * (SIZE // 18),
    "names of evaluations": "".join(f"{{'epoch':1,'eval_{i:06}_runtime':1}}" for i in range(SIZE // 36)),
    "dicts without end": "{'epoch': 1, " * (SIZE // 13),
    "comments": "x" + " #" * (SIZE // 2) + "'",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_no_text_takes_much_longer_than_another_of_its_size(text):
    """Processor seconds against those of a trainer's own lines; where they grow with the square they are hundreds."""
    end = "max_steps: 30\n{'train_runtime': 9.5, 'train_steps_per_second': 3.2, 'epoch': 1.0}\n"
    line = "{'loss': 1.2345, 'grad_norm': 0.512, 'learning_rate': 4.9e-05, 'epoch': 0.37}\n"

    def seconds(lines):
        cell = {"cell_type": "code", "source": lines, "outputs": [{"text": f"{lines}\n{end}"}]}
        taken = []
        for _ in range(2):
            began = time.process_time()
            assert read_notebook({"cells": [cell]})
            taken.append(time.process_time() - began)
        return min(taken)

    assert seconds(text) < 8 * seconds(line * (SIZE // len(line)))


@pytest.mark.parametrize("content", ["", "hello", "{", "[]", "{}", "\x00\xff", '{"cells": 3}', "[1, 2]", "global: 3"])
def test_what_is_no_log_is_one_line(tmp_path, content):
    (tmp_path / "log").write_text(content)
    with pytest.raises(UserError, match="is no log of a training; it takes"):
        read_log(tmp_path / "log")


def test_a_file_that_cannot_be_read(tmp_path):
    for path in (tmp_path, tmp_path / "nosuch"):
        with pytest.raises(UserError, match="name a log"):
            read_log(path)


@pytest.mark.parametrize("value", [None, True, "x", "", -1, 0, math.nan, math.inf, "nan", "1e999", [1], {}, 10**400])
def test_what_is_no_number_of_a_run(value):
    assert positive(value) is None and count(value) is None
