"""Memory that runs out while answering: half of the rows, and so on, with the same answers."""

import pytest
import torch
from test_train_packing import ERRORS
from test_tune_decode import tuned  # noqa: F401  # a fixture

from harness.tune import decode, decode_batches
from harness.tune.decode_batches import TokenLimit
from harness.tune.decode_steps import Way


class Card:
    """Fails as a card does whose memory holds `most` rows in one forward; counts the rows of all forwards."""

    def __init__(self, model, most, problem):
        self.model, self.most, self.problem, self.rows = model.get_base_model().model, most, problem, []

    def __enter__(self):
        self.hook = self.model.register_forward_pre_hook(self.forward, with_kwargs=True)
        return self

    def __exit__(self, *_):
        self.hook.remove()

    def forward(self, _, args, inputs):
        self.rows.append(len(inputs["input_ids"]))
        if self.rows[-1] > self.most:
            raise self.problem


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("problem", ERRORS)
def test_fewer_rows_give_the_same_answers_and_it_is_said_once(tuned, monkeypatch, static, problem):  # noqa: F811
    if not static:
        monkeypatch.setattr(decode_batches, "way_of", lambda config: Way())
    model, tokens, prompts = tuned
    limits = [8 + i % 3 for i in range(len(prompts))]
    expected = decode.greedy(model, tokens, prompts, limits)
    heard, said = [], []
    limit = TokenLimit(note=said.append)
    with Card(model, 3, problem) as card:
        assert decode.greedy(model, tokens, prompts, limits, limit=limit, on_texts=heard.append) == expected
        failed = sum(rows > 3 for rows in card.rows)
        assert 2 <= failed <= 5  # 18 rows, 9, 4, then what fits
        # Every text is told once, those from before memory ran out too.
        assert sorted(i for new in heard for i in new) == list(range(len(prompts)))
        # What was learnt stays for the next questions.
        card.rows.clear()
        assert decode.greedy(model, tokens, prompts, limits, limit=limit) == expected
        assert max(card.rows) <= 3
    assert said == limit.notes and len(said) == 1
    assert said[0].startswith(f"memory ran out with {len(prompts)} answers at once: going on with {len(prompts) // 2}")
    assert model.training


def test_what_is_done_does_not_count_where_memory_runs_out_later(tuned, monkeypatch):  # noqa: F811
    """A prompt that fills a batch alone is answered; then five short ones at once are too many, and fewer are not."""
    monkeypatch.setattr(decode_batches, "way_of", lambda config: Way())
    model, tokens, prompts = tuned
    short = prompts[:5]
    total = max(map(len, short)) + 8
    asked = [(short[0] * 20)[: 3 * total - 8], *short]
    expected = decode.greedy(model, tokens, asked, [8] * 6)
    limit = TokenLimit(5 * total)
    with Card(model, 3, ERRORS[1]):
        assert decode.greedy(model, tokens, asked, [8] * 6, limit=limit) == expected
    assert limit.notes


def test_a_single_row_that_is_too_much_ends_it(tuned):  # noqa: F811
    model, tokens, prompts = tuned
    with Card(model, 0, ERRORS[1]) as card, pytest.raises(torch.OutOfMemoryError, match="CUDA error: out of memory"):
        decode.greedy(model, tokens, prompts, [8] * len(prompts))
    assert card.rows[-1] == 1
    assert model.training


def test_other_errors_are_not_met_by_fewer_rows(tuned):  # noqa: F811
    model, tokens, prompts = tuned
    with Card(model, 0, RuntimeError("CUDA error: device-side assert triggered")) as card, pytest.raises(RuntimeError):
        decode.greedy(model, tokens, prompts, [8] * len(prompts))
    assert len(card.rows) == 1
