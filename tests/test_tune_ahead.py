"""Prompts that a thread prepares are those that training would have prepared, one by one."""

import threading
import time
from itertools import islice

import pytest
import torch
from helpers.tasks import made_tasks
from helpers.tuning import Watched, spec_of

from harness.errors import UserError
from harness.tune import runner
from harness.tune.ahead import Ahead


class Numbers:
    """0, 1, 2 ...; every third does not fit. It ends as `end` says."""

    def __init__(self, end=10**9):
        self.used = self.too_long = self.number = 0
        self.end = end

    def __next__(self):
        if self.number == self.end:
            raise UserError("no example fits")
        self.number += 1
        if self.number % 3 == 0:
            self.too_long += 1
            self.number += 1
        self.used += 1
        return [self.number], 1


def test_the_same_order_and_the_counts_of_what_was_handed_out():
    alone = Numbers()
    with Ahead(Numbers(), ahead=4) as drawn:
        for _ in range(50):
            assert next(drawn) == next(alone)
            assert (drawn.used, drawn.too_long) == (alone.used, alone.too_long)


def test_it_draws_ahead_and_no_further():
    numbers = Numbers()
    with Ahead(numbers, ahead=4) as drawn:
        next(drawn)
        deadline = time.monotonic() + 20
        while numbers.used < 6 and time.monotonic() < deadline:  # one handed out, four that wait, one at the door
            time.sleep(0.01)
        assert (numbers.used, drawn.used) == (6, 1)


def test_what_goes_wrong_is_raised_in_its_place():
    with Ahead(Numbers(end=2)) as drawn:
        assert list(islice(drawn, 2)) == [([1], 1), ([2], 1)]
        for _ in range(2):
            with pytest.raises(UserError, match="no example fits"):
                next(drawn)


def test_the_thread_ends_with_it():
    before = threading.active_count()
    with Ahead(Numbers(), ahead=2) as drawn:
        next(drawn)
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


def test_a_fine_tune_with_a_thread_is_the_same_and_goes_on_after_a_stop(tmp_path, arc_folder, monkeypatch):
    tasks, solutions = made_tasks(3)
    spec = spec_of(arc_folder, tasks)
    plain = Watched(spec, tasks, solutions, tmp_path / "plain.pt", 1e9)
    monkeypatch.setattr(runner, "draws_ahead", lambda device: True)
    whole = Watched(spec, tasks, solutions, tmp_path / "whole.pt", 1e9)
    assert Watched(spec, tasks, solutions, tmp_path / "stopped.pt", 0.0, stop=5).outcome is None
    rest = Watched(spec, tasks, solutions, tmp_path / "stopped.pt", 0.0)
    assert 0 < len(rest.steps) < len(whole.steps)
    whole.same_end(plain)
    rest.same_end(plain)
    assert all(torch.equal(a, b) for a, b in zip(rest.adapters[-1].values(), plain.adapters[-1].values(), strict=True))


def test_only_a_card_has_a_thread():
    assert runner.draws_ahead("cuda:1") and not runner.draws_ahead("cpu")
