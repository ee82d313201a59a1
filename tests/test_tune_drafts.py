"""Drafts: what is guessed, and that guesses change the number of steps and no answer."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

import harness
from harness.arc.dataset import Questions
from harness.arc.prompt import PromptFormat
from harness.arc.sources import load
from harness.arc.task import within
from harness.train.compat import import_peft, quiet
from harness.train.model import load_tokenizer
from harness.tune import candidates, decode, drafts
from harness.tune.decode_batches import TokenLimit
from harness.tune.decode_check import way_of
from harness.tune.decode_slots import Slots
from harness.tune.drafts import Draft, Worth


def test_what_followed_the_same_tokens_is_guessed():
    draft = Draft([1, 2, 3, 4, 5, 9, 1, 2], 10)
    assert draft.next(3) == [3, 4, 5]
    assert draft.next(99) == [3, 4, 5, 9, 1, 2]
    assert draft.next(0) == []


def test_a_token_that_differs_does_not_end_a_copy():
    """After 1 2 3 4 5 6 came 7; the answer has 1 2 3 4 0 6 by now, and 0 6 came nowhere."""
    draft = Draft([1, 2, 3, 4, 5, 6, 7, 8, 9], 10)
    for token in (1, 2, 3, 4, 0, 6):
        draft.add(token)
    assert draft.next(2) == [7, 8]
    # Right after the one that differs, too, though a 0 with another tail is nearer.
    draft = Draft([1, 2, 3, 4, 5, 6, 7, 9, 9, 0, 2], 10)
    for token in (1, 2, 3, 4, 0):
        draft.add(token)
    assert draft.next(2) == [6, 7]


def test_of_equal_places_the_nearest_counts():
    assert Draft([5, 1, 5, 2, 5], 3).next(1) == [2]


@pytest.mark.parametrize("prompt", [[], [7]])
def test_too_little_to_guess_from(prompt):
    assert Draft(prompt, 4).next(4) == []


def test_a_step_back_is_as_if_never_gone():
    generator = torch.Generator().manual_seed(0)
    prompt, answer, other = (torch.randint(4, (n,), generator=generator).tolist() for n in (80, 30, 9))
    gone, straight = Draft(prompt, 60), Draft(prompt, 60)
    for token in answer + other:
        gone.add(token)
    gone.rewind(len(other))
    for token in answer:
        straight.add(token)
    assert gone.next(16) == straight.next(16)
    assert gone.tokens[: gone.length].tolist() == prompt + answer


@pytest.mark.parametrize(("kind", "right"), [("cpu", 0.3), ("cuda", 0.1)])
def test_guesses_that_are_wrong_are_tried_now_and_then_alone(kind, right):
    """A prose of which few guesses are right, and later a grid."""
    worth, guesses = Worth(kind), []
    for step in range(100):
        guesses.append(worth.most(10))
        share = right if step < 60 else 2.5
        if guesses[-1]:
            worth.saw([3] * 10, [1 + share] * 10)
    assert guesses[0] and guesses[0] == worth.most(10)
    assert 0 < sum(map(bool, guesses[10:60])) <= 4
    assert all(guesses[80:])


def test_a_step_without_guesses_says_nothing_of_their_worth():
    worth = Worth("cpu")
    for _ in range(50):
        worth.saw([0, 0], [1, 1])
    assert worth.most(2)


def test_what_fills_up_a_row_has_no_position_beyond_the_models_last():
    """A GPT-2 of 12 positions: eleven tokens are read, and the twelfth beside three of a shorter row."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=30, n_embd=16, n_layer=1, n_head=2, n_positions=12)
    slots = Slots(GPT2LMHeadModel(config).eval(), 2, 12, gaps=True)
    with torch.no_grad():
        slots.read([list(range(11))])
        slots.read([[1, 2, 3, 4]])
        together = slots.step([[11], [5, 6, 7]])
        alone = slots.model(input_ids=torch.arange(12)[None]).logits[0, -1]
    assert torch.allclose(together[0, 0], alone, atol=1e-5)


@pytest.fixture(scope="module")
def asked():
    """The included model, its tokenizer, and questions of three ARC tasks in two views."""
    folder = Path(harness.__file__).parent / "assets" / "arc-tiny"
    with quiet():
        base = AutoModelForCausalLM.from_pretrained(folder)
        model = import_peft().get_peft_model(base, import_peft().LoraConfig(r=2, target_modules=["q_proj"]))
    way_of(base.config)  # its steps are none of an answer
    prompts = PromptFormat(tokenizer=load_tokenizer(str(folder)), encoding="rows", context=512)
    tasks = within(load("arc1-evaluation")[0], 6)[:3]
    return model, prompts.tokenizer, Questions(tasks, prompts, 2).prompts


@pytest.fixture
def steps(monkeypatch):
    """Makes as many guesses as it is told; gives the number of steps since then."""
    counted, step = [], Slots.step

    def counting(self, tokens):
        counted.append(max(map(len, tokens)))
        return step(self, tokens)

    monkeypatch.setattr(Slots, "step", counting)
    monkeypatch.setattr(drafts, "_LEAST_RIGHT", {"cpu": 0.0})  # however few are right

    def guess(most):
        counted.clear()
        monkeypatch.setattr(drafts, "drafted_tokens", lambda kind, rows: most)
        return counted

    return guess


def _dfs(model, tokens, prompts, limits, rows):
    decoding = candidates.Decoding(method="dfs", encoding="rows", threshold=0.1)
    return candidates.candidates(model, tokens, prompts, limits, decoding, limit=TokenLimit(rows))


def _sample(model, tokens, prompts, limits, rows):
    decoding = candidates.Decoding(method="sample", encoding="rows")
    return candidates.candidates(model, tokens, prompts, limits, decoding, limit=TokenLimit(rows))


def _greedy(model, tokens, prompts, limits, rows):
    return decode.greedy(model, tokens, prompts, limits, limit=TokenLimit(rows))


@pytest.mark.parametrize(("answers", "share"), [(_greedy, 0.7), (_dfs, 0.9), (_sample, 0.9)])
@pytest.mark.parametrize("rows", [2, 100])
def test_guesses_change_no_answer_and_save_steps(asked, steps, answers, share, rows):
    """With limits that end some answers within a guess."""
    model, tokens, prompts = asked
    limits = [(5, 25, 40)[i % 3] for i in range(len(prompts))]
    cached = rows * (max(map(len, prompts)) + 40)
    counted = steps(0)
    expected = answers(model, tokens, prompts, limits, cached)
    without = len(counted)
    assert any(expected) and set(counted) == {1}
    for most in (1, 16):
        counted = steps(most)
        assert answers(model, tokens, prompts, limits, cached) == expected
        # As many tokens as before are read in fewer steps.
        assert len(counted) < without and max(counted) == most + 1
    assert len(counted) < share * without
