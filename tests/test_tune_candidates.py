"""Depth first against brute force, drawing against the distribution, and grids only, on a small model."""

import itertools
import math
import random
from collections import Counter

import pytest
import torch
import transformers
from helpers.tasks import made_tasks
from helpers.tuning import fine_tuned
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from harness.arc import grammar
from harness.arc.encode import ENCODINGS, from_rows
from harness.arc.prompt import build
from harness.catalog import model_folder
from harness.catalog.precisions import find
from harness.errors import UserError
from harness.records.cell import Recipe
from harness.train import model as models
from harness.train.special_tokens import end_ids
from harness.tune import candidates as module
from harness.tune import decode_batches
from harness.tune.candidates import SEPARATOR, Decoding, Watch, candidates
from harness.tune.decode_batches import TokenLimit
from harness.tune.decode_steps import ONE, Way
from harness.tune.grid_tokens import GridTokens


@pytest.fixture(scope="module")
def tuned(arc_folder):
    """A model that is a little trained, so that several answers are likely, with its tokenizer and prompts."""
    recipe = Recipe(lora_r=8, sequences_per_step=4, learning_rate=1e-2)
    spec = model_folder.from_folder(arc_folder)
    model = models.load(spec, find("fp32"), "fp32", recipe, str(arc_folder), torch.device("cpu")).model
    tokens = models.load_tokenizer(str(arc_folder))
    tasks, _ = made_tasks(6, rule=lambda grid: (grid[0][:2],) * (1 + grid[0][0] % 2))
    fine_tuned(model, tokens, tasks, recipe, 60, context=512)
    shown = [(task.demonstrations[:n], task.test_inputs[0]) for task in tasks for n in (1, 2, 3)]
    return model, tokens, [build(tokens, pairs, test_input, None, "rows").ids for pairs, test_input in shown]


def _brute_force(model, tokenizer, prompt, limit, threshold):
    """All grids whose probability among what grids allow is at least `threshold`: every prefix by a plain forward."""
    tokens = GridTokens(tokenizer, "rows", end_ids(tokenizer, model.get_base_model()), 10**9)
    found, prefixes = {}, [((), grammar.Written(), 0.0)]
    model.eval()
    while prefixes:
        ids, written, log_prob = prefixes.pop()
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*prompt, *ids]])).logits[0, -1].double()
        allowed = {id: grammar.after("rows", written, text) for id, text in tokens.texts.items()}
        allowed = {id: state for id, state in allowed.items() if state}
        ends = tokens.ends if written.whole else []
        total = logits[[*allowed, *ends]].logsumexp(0)
        if ends and (end := log_prob + (logits[ends].logsumexp(0) - total).item()) >= math.log(threshold):
            found[tokenizer.decode(list(ids))] = end
        for id, state in allowed.items():
            following = log_prob + (logits[id] - total).item()
            if following >= math.log(threshold) and len(ids) + 2 <= limit:
                prefixes.append(((*ids, id), state, following))
    return dict(sorted(found.items(), key=lambda item: -item[1]))


@pytest.mark.parametrize("threshold", [0.003, 0.03])
@pytest.mark.parametrize("rows", [1, 3, 100])
def test_depth_first_finds_what_brute_force_finds(tuned, threshold, rows):
    model, tokenizer, prompts = tuned
    limits = [(9, 25)[i % 2] for i in range(len(prompts))]
    expected = [_brute_force(model, tokenizer, p, n, threshold) for p, n in zip(prompts, limits, strict=True)]
    assert max(map(len, expected)) >= 2  # several answers to one question, with steps back between them
    limit = TokenLimit(rows * (max(map(len, prompts)) + 25))
    texts = candidates(
        model, tokenizer, prompts, limits, Decoding(method="dfs", encoding="rows", threshold=threshold), limit=limit
    )
    for text, grids in zip(texts, expected, strict=True):
        # Where nothing is above the threshold there is one answer all the same, or none that ended in time.
        assert text.split(SEPARATOR) == list(grids) if grids else SEPARATOR not in text
    assert model.training


def test_without_a_cache_the_same(tuned, monkeypatch):
    model, tokenizer, prompts = tuned
    decoding = Decoding(method="dfs", encoding="rows", threshold=0.02)
    with_cache = candidates(model, tokenizer, prompts[:4], [12] * 4, decoding)
    monkeypatch.setattr(decode_batches, "way_of", lambda config: Way(cached=False, rows=ONE))
    assert candidates(model, tokenizer, prompts[:4], [12] * 4, decoding) == with_cache


def test_memory_that_runs_out_changes_no_answer(tuned, monkeypatch):
    model, tokenizer, prompts = tuned
    decoding = Decoding(method="dfs", encoding="rows", threshold=0.02)
    expected = candidates(model, tokenizer, prompts, [12] * len(prompts), decoding)
    made = module.Slots

    def narrow(model, rows, longest, **more):
        if rows > 5:
            raise torch.OutOfMemoryError("no room")
        return made(model, rows, longest, **more)

    monkeypatch.setattr(module, "Slots", narrow)
    limit = TokenLimit()
    assert candidates(model, tokenizer, prompts, [12] * len(prompts), decoding, limit=limit) == expected
    assert limit.notes


@pytest.mark.parametrize("cached", [True, False])
def test_stopped_it_keeps_what_it_has_and_computes_no_more(tuned, monkeypatch, cached):
    """After every number of tokens: what there is belongs to the whole search, and is no less than before."""
    if not cached:
        monkeypatch.setattr(decode_batches, "way_of", lambda config: Way(cached=False, rows=ONE))
    model, tokenizer, prompts = tuned
    decoding = Decoding(method="dfs", encoding="rows", threshold=0.003)
    whole = [set(text.split(SEPARATOR)) for text in candidates(model, tokenizer, prompts[:3], [25] * 3, decoding)]
    forwards, before = [], 0
    hook = model.get_base_model().model.register_forward_pre_hook(lambda *_: forwards.append(1))
    for most in (0, 4, 16, 64, 1000):
        forwards.clear()
        heard = {}
        watch = Watch(on_texts=heard.update, stop=lambda most=most: len(forwards) >= most)
        texts = candidates(model, tokenizer, prompts[:3], [25] * 3, decoding, watch=watch)
        assert len(forwards) <= most
        found = [set(text.split(SEPARATOR)) if text else set() for text in texts]
        assert all(own <= grids for own, grids in zip(found, whole, strict=True))
        assert heard == {i: texts[i] for i in heard} and all(i in heard for i, text in enumerate(texts) if text)
        assert sum(map(len, found)) >= before
        before = sum(map(len, found))
    hook.remove()
    assert before == sum(map(len, whole)) and model.training


def test_an_unsure_model_still_answers_with_a_grid(arc_folder):
    """Random weights: nothing is above the threshold, and the most likely grid comes out, if it ends in time."""
    spec = model_folder.from_folder(arc_folder)
    model = models.load(spec, find("fp32"), "fp32", Recipe(lora_r=4), str(arc_folder), torch.device("cpu")).model
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.02)
    tokenizer = models.load_tokenizer(str(arc_folder))
    (task,), _ = made_tasks(1)
    prompt = build(tokenizer, task.demonstrations, task.test_inputs[0], None, "rows").ids
    # Drawing, too, gives grids or nothing.
    decodings = [Decoding(method="sample", encoding="rows", seed=seed) for seed in range(8)]
    texts = [
        candidates(model, tokenizer, [prompt], [960], decoding)[0]
        for decoding in (Decoding(method="dfs", encoding="rows"), *decodings)
    ]
    assert any(texts)
    assert all(not text or from_rows(text) is not None for text in texts)


def test_samples_follow_the_probabilities_and_no_batch_changes_them(tuned):
    model, tokenizer, prompts = tuned
    decoding = Decoding(method="sample", encoding="rows")
    together = candidates(model, tokenizer, prompts, [25] * len(prompts), decoding)
    assert together == [candidates(model, tokenizer, [prompt], [25], decoding)[0] for prompt in prompts]
    # Brute force gives what is likely; of 100 draws the likely answers have their share.
    likely = prompts[0]
    best = _brute_force(model, tokenizer, likely, 25, 0.003)
    share = sum(math.exp(log_prob) for log_prob in best.values())
    assert share > 0.2
    counts = Counter(
        candidates(model, tokenizer, [likely], [25], Decoding(method="sample", encoding="rows", seed=seed))[0]
        for seed in range(100)
    )
    assert abs(sum(counts[text] for text in best) - 100 * share) <= 15  # three standard deviations; seeds are fixed


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_grammar_is_the_encoding(encoding):
    """Every encoded grid passes and may end there alone; every random text that may end decodes to what is written."""
    encode, read = ENCODINGS[encoding]
    rng = random.Random(0)
    for height, width in itertools.product((1, 2, 9, 10, 30), (1, 2, 11, 30)):
        grid = tuple(tuple(rng.randrange(10) for _ in range(width)) for _ in range(height))
        written = grammar.after(encoding, grammar.Written(), encode(grid))
        assert written is not None and grammar.may_end(encoding, written)
        assert not height > 30 and grammar.after(encoding, written, "\n\n") is None
    ended = 0
    for _ in range(300):
        text, written = "", grammar.Written()
        for _ in range(rng.randrange(2, 60)):
            following = {c: s for c in grammar.ALPHABET if (s := grammar.after(encoding, written, c)) is not None}
            if not following:
                break
            # Newlines more often, so that grids of several rows come.
            choice = "\n" if "\n" in following and rng.random() < 0.4 else rng.choice(sorted(following))
            text, written = text + choice, following[choice]
            assert grammar.may_end(encoding, written) == (read(text) is not None and not text.endswith("\n"))
            ended += grammar.may_end(encoding, written)
    assert ended > 50


def test_a_tokenizer_whose_digits_are_no_tokens_is_refused(tuned):
    _, tokenizer, _ = tuned
    digit = tokenizer("7", add_special_tokens=False)["input_ids"][0]
    with pytest.raises(UserError, match="try another --encoding"):
        GridTokens(tokenizer, "rows", [digit], 10**9)


def _byte_tokenizer():
    """Of bytes as GPT-2 writes them, with a token for "12" and one for a space with a digit."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: i for i, letter in enumerate([*letters, "12", "\u01203", "<end>"])}
    inner = Tokenizer(BPE(vocab=vocab, merges=[("1", "2"), ("\u0120", "3")]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_tokens_of_several_characters_are_walked_too(encoding):
    """Every grid's own tokens are allowed one after the other, and the end after the last alone."""
    tokenizer, rng = _byte_tokenizer(), random.Random(1)
    end = tokenizer.eos_token_id
    tokens = GridTokens(tokenizer, encoding, [end], len(tokenizer))
    assert {"12", " 3"} <= set(tokens.texts.values())
    for _ in range(20):
        height, width = rng.randrange(1, 12), rng.randrange(1, 12)
        grid = tuple(tuple(rng.randrange(4) for _ in range(width)) for _ in range(height))
        written = grammar.Written()
        for id in tokenizer(ENCODINGS[encoding][0](grid), add_special_tokens=False)["input_ids"]:
            options = tokens.options(written)
            written = options.states[options.ids.tolist().index(id)]
        assert tokens.options(written).ids.tolist()[-1] == end
