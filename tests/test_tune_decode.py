"""Decoding in batches that rows leave, against one row at a time and against plain argmax without a cache."""

import random
from types import SimpleNamespace

import pytest
import torch
from helpers.tasks import made_tasks
from helpers.tuning import fine_tuned

from harness.arc.dataset import Questions, cannot_be_grid
from harness.arc.encode import ENCODINGS
from harness.arc.prompt import PromptFormat, build
from harness.catalog import model_folder
from harness.catalog.precisions import find
from harness.predict.answering import CacheSize
from harness.records.cell import Recipe
from harness.train import model as models
from harness.tune import decode, decode_batches
from harness.tune.decode_batches import Room, TokenLimit
from harness.tune.decode_steps import Answer, Steps, Way


@pytest.fixture(scope="module")
def tuned(arc_folder):
    """A model that answers some prompts soon, some late and some never, with its tokenizer, and the prompts."""
    recipe = Recipe(lora_r=8, sequences_per_step=4, learning_rate=1e-2)
    spec = model_folder.from_folder(arc_folder)
    model = models.load(spec, find("fp32"), "fp32", recipe, str(arc_folder), torch.device("cpu")).model
    tokens = models.load_tokenizer(str(arc_folder))
    tasks, _ = made_tasks(6, rule=lambda grid: (grid * 4)[: 1 + grid[0][0]])
    fine_tuned(model, tokens, tasks, recipe, 25, context=512)
    shown = [(task.demonstrations[:n], task.test_inputs[0]) for task in tasks for n in (1, 2, 3)]
    return (
        model,
        tokens,
        [build(tokens, demonstrations, test_input, None, "rows").ids for demonstrations, test_input in shown],
    )


def _plainly(model, tokens, prompt, max_new_tokens):
    """The text of argmax after argmax over the whole sequence; empty where `max_new_tokens` pass without the end."""
    ids = list(prompt)
    model.eval()
    with torch.no_grad():
        for _ in range(max_new_tokens):
            token = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
            if token == tokens.eos_token_id:
                return tokens.decode(ids[len(prompt) :])
            ids.append(token)
    return ""


def _rows_of_each_forward(model):
    seen = []
    # The lowest PEFT calls the forward of the base, past its hooks.
    hook = model.get_base_model().model.register_forward_pre_hook(
        lambda _, args, inputs: seen.append(len(inputs["input_ids"])), with_kwargs=True
    )
    return seen, hook


def test_rows_that_leave_the_batch_change_no_text(tuned, monkeypatch):
    """Without a static cache. 1 to 40 new tokens, so that some rows end, some run out of them early and some late: all
    as each one alone."""
    monkeypatch.setattr(decode_batches, "way_of", lambda config: Way())
    model, tokens, prompts = tuned
    limits = [(1, 3, 12, 40)[i % 4] for i in range(len(prompts))]
    expected = [_plainly(model, tokens, prompt, limit) for prompt, limit in zip(prompts, limits, strict=True)]
    assert len(set(map(len, expected))) >= 3 and "" in expected  # early, late and never
    seen, hook = _rows_of_each_forward(model)
    together = decode.greedy(model, tokens, prompts, limits, limit=TokenLimit(10**6))
    hook.remove()
    assert together == expected
    assert seen[0] == len(prompts) and seen[-1] < len(prompts) / 2  # one batch, which shrank
    assert sorted(seen, reverse=True) == seen
    assert [
        decode.greedy(model, tokens, [prompt], [limit])[0] for prompt, limit in zip(prompts, limits, strict=True)
    ] == expected


@pytest.mark.parametrize("batch_tokens", [1, 150, 400, 1000])
def test_the_size_of_batches_changes_no_text(tuned, batch_tokens):
    model, tokens, prompts = tuned
    limits = [12 + i % 3 for i in range(len(prompts))]
    heard = []
    texts = decode.greedy(model, tokens, prompts, limits, limit=TokenLimit(batch_tokens), on_texts=heard.append)
    assert texts == decode.greedy(model, tokens, prompts, limits, limit=TokenLimit(10**6))
    # Every text is told once, when it is finished.
    assert sorted(i for new in heard for i in new) == list(range(len(prompts)))
    assert {i: text for new in heard for i, text in new.items()} == dict(enumerate(texts))
    assert len(heard) > 3


def test_a_batch_that_is_stopped_keeps_what_is_finished(tuned, monkeypatch):
    """In the way of models without a static cache; at the sixteenth token of the first row that goes on so long."""
    model, tokens, prompts = tuned
    limits = [40] * len(prompts)
    monkeypatch.setattr(decode, "ways_of", lambda config, prompts, limits: [Way()] * len(prompts))
    whole, kept = decode.greedy(model, tokens, prompts, limits), {}

    def stopped(text):
        raise TimeoutError

    with pytest.raises(TimeoutError):
        decode.greedy(model, tokens, prompts, limits, hopeless=stopped, on_texts=kept.update)
    assert len(kept) < len(prompts) and kept == {i: whole[i] for i in kept} and any(kept.values())


def test_an_endless_answer_is_no_answer(tuned):
    """Without a token for the end there is no text, however good its beginning: a grid cut short is not guessed at."""
    model, tokens, prompts = tuned
    whole = decode.greedy(model, tokens, prompts, [40] * len(prompts))
    ended = [i for i, text in enumerate(whole) if text and set(text) <= set("0123456789\n")]
    assert ended
    for i in ended:
        length = len(whole[i])  # one token a character; the end is one more
        assert decode.greedy(model, tokens, [prompts[i]], [length + 1]) == [whole[i]]
        assert decode.greedy(model, tokens, [prompts[i]], [length]) == [""]


class Saying:
    """Stands for a model: row i says its text, a token a character, and then the end; asked as `Steps` asks."""

    def __init__(self, tokens, texts):
        self.ids = [[*tokens(text, add_special_tokens=False)["input_ids"], tokens.eos_token_id] for text in texts]
        self.size, self.forwards = len(tokens), []

    def forward(self, input_ids):
        number = len(self.forwards)
        self.forwards.append(len(input_ids))
        logits = torch.zeros(len(self.ids), 1, self.size)
        for row, ids in enumerate(self.ids):
            logits[row, 0, ids[min(number, len(ids) - 1)]] = 1.0
        return SimpleNamespace(logits=logits)

    __call__ = forward


@pytest.mark.parametrize(
    ("text", "forwards"),
    [
        ("1" * 900, 64),  # a row of 64 cells, looked at every 16 tokens; 63 could be "30 " and thirty cells with spaces
        ("1\n" * 450, 64),  # 32 rows, of which 31 could be a shape and thirty rows
        ("\n" * 900, 901),  # nothing but newlines may still become a grid
        (("1" * 30 + "\n") * 29 + "1" * 30, 930),  # the largest grid there is, and its end
        ("12\n34", 6),
    ],
)
def test_what_can_be_no_grid_any_more_is_not_waited_for(tuned, text, forwards):
    _, tokens, _ = tuned
    model = Saying(tokens, [text])
    ids = torch.zeros(1, 5, dtype=torch.long)

    def hopeless(ids):
        return cannot_be_grid(tokens.decode(ids))

    steps = Steps(model, ids, torch.ones_like(ids), Way(cached=False))
    answer = Answer(1000, {tokens.eos_token_id}, hopeless)
    decode._decode(steps, [answer])
    assert len(model.forwards) == len(answer.tokens) == forwards
    assert tokens.decode([token for token in answer.tokens if token != tokens.eos_token_id]) == text[:forwards]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_beginning_of_a_grid_is_hopeless(encoding):
    """Every prefix of the largest grids in every encoding, and of some others."""
    rng = random.Random(1)
    for height, width in ((30, 30), (1, 30), (30, 1), *((rng.randint(1, 30), rng.randint(1, 30)) for _ in range(5))):
        to_text, _ = ENCODINGS[encoding]
        text = to_text(tuple(tuple(rng.randrange(10) for _ in range(width)) for _ in range(height)))
        assert not any(cannot_be_grid(text[:n]) for n in range(len(text) + 1))


def test_what_is_hopeless_is_no_grid_and_stays_so():
    rng, hopeless = random.Random(2), 0
    for _ in range(300):
        text = "".join(rng.choices("0123456789 x\n", [1] * 10 + [2, 1, rng.choice([0.1, 1, 9])], k=rng.randint(1, 400)))
        if cannot_be_grid(text):
            hopeless += 1
            assert all(to_grid(text) is None for _, to_grid in ENCODINGS.values())
            assert cannot_be_grid(text + rng.choice("12 x"))
    assert 50 < hopeless < 250


def test_batches_keep_to_their_tokens_and_lose_nothing():
    prompts = [range(n) for n in (5, 90, 40, 41, 7, 200)]
    limits = [10, 10, 60, 10, 3, 1]
    room = Room(CacheSize(1, 1), 0, "cpu", 200)
    batches = decode_batches.batches(prompts, limits, room, [Way()] * len(prompts), range(6))
    assert sorted(i for members in batches for i in members) == list(range(6))
    assert batches[0] == [5]  # the longest alone, and first
    for members in batches[1:]:
        assert len(members) * max(len(prompts[i]) + limits[i] for i in members) <= 200


def test_the_model_is_as_it_was_after_decoding(tuned):
    model, tokens, prompts = tuned
    before = model.get_base_model().config._attn_implementation
    decode.greedy(model, tokens, prompts[:1], [3])
    assert model.training
    assert model.get_base_model().config._attn_implementation == before == "plain_causal"
    with pytest.raises(IndexError):
        decode.greedy(model, tokens, [(10**6,)], [3])  # no such token
    assert model.training
    assert model.get_base_model().config._attn_implementation == before


def test_dropping_asks_fewer_questions_than_shortening(tuned):
    """A grid is 1 + 7 tokens, three demonstrations and the question 1 + 7 x 8 + 1 = 58, an answer may take
    2 x 7 + 32 = 46: 104 in all; 16 fewer with each demonstration less, so that in 71 there is no question."""
    _, tokens, _ = tuned
    tasks, _ = made_tasks(4)
    questions = [
        Questions(tasks, PromptFormat(tokenizer=tokens, encoding="rows", context=context, shorten=shorten), views=1)
        for context, shorten in ((104, False), (103, False), (103, True), (87, True), (71, True))
    ]
    assert [(len(q.prompts), q.skipped) for q in questions] == [(4, 0), (0, 4), (4, 0), (4, 0), (0, 4)]
    sizes = [{(len(ids), limit) for ids, limit in zip(q.prompts, q.max_new_tokens, strict=True)} for q in questions]
    assert sizes == [{(58, 46)}, set(), {(42, 46)}, {(26, 46)}, set()]
