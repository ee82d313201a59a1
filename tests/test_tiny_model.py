"""arc-tiny itself: its tokenizer, its targets, and a pretraining that goes on where it was."""

import json
import random

import pytest

from harness.arc.prompt import build
from harness.arc.task import Pair, Task


def test_the_tokenizer_spends_one_token_a_cell():
    from harness.tiny.model import SYMBOLS, tokenizer

    tokens = tokenizer()
    task = Task("p", (Pair(((1, 2), (3, 4)), ((5,),)),), (((6, 7),),))
    prompt = build(tokens, task.demonstrations, task.test_inputs[0], ((8,),), "rows")
    assert "".join(SYMBOLS[i] for i in prompt.ids) == "<s>I12\n34O5I67O8</s>"
    assert prompt.answer_tokens == 2


@pytest.mark.parametrize("seed", range(20))
def test_what_is_encoded_decodes_to_the_same_text_without_spaces(seed):
    """Digits, newlines and the two words' tokens; what the vocabulary lacks is one unknown token, never left out."""
    from harness.tiny.model import SYMBOLS, tokenizer

    tokens, rng = tokenizer(), random.Random(seed)
    text = "".join(rng.choice([*"0123456789", "\n", "I", "O"]) for _ in range(rng.randint(1, 200)))
    ids = tokens(text, add_special_tokens=False)["input_ids"]
    assert tokens.decode(ids) == text and len(ids) == len(text)
    every = [rng.randrange(len(SYMBOLS)) for _ in range(50)]
    assert tokens.decode(every) == "".join(SYMBOLS[i] for i in every)
    odd = tokens("1 x2", add_special_tokens=False)["input_ids"]
    assert [SYMBOLS[i] for i in odd] == ["1", "<unk>", "<unk>", "2"]


def test_the_tokenizer_is_the_same_from_the_disk(tmp_path):
    from transformers import AutoTokenizer

    from harness.tiny.model import tokenizer

    text = "Input 1:\n12\n34\nOutput 1:\n5\n\nInput 12:\n67\nOutput 12:\n"
    tokenizer().save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded(text)["input_ids"] == tokenizer()(text)["input_ids"]
    assert loaded.decode(loaded(text)["input_ids"]) == "I12\n34O5I67O"
    assert (loaded.bos_token, loaded.eos_token, loaded.pad_token) == ("<s>", "</s>", "<pad>")


def test_targets_are_the_outputs_but_the_first():
    from harness.tiny.model import SYMBOLS
    from harness.tiny.pretrain import targets

    text = ["<s>", *"I12O21I34O43", "</s>"]
    targeted = targets([SYMBOLS.index(s) for s in text])
    # After the second O: 4, 3 and the end; the first output and every input are not learned.
    assert [SYMBOLS[t] if t >= 0 else "." for t in targeted] == [*"..........43", "</s>", "."][: len(text)]


def test_pretraining_goes_on_where_it_was(tmp_path):
    """Four steps at once, or two and two: the same weights to the bit; then loaded as a hub model is."""
    import torch

    from harness.catalog import model_folder, precisions
    from harness.records.cell import Recipe
    from harness.tiny import pretrain
    from harness.train import model as models

    config = pretrain.PretrainConfig(steps=4, largest=3, batch_tokens=256, adam=1e-3, save_every=2)
    pretrain.train(tmp_path / "a", config)
    pretrain.train(tmp_path / "b", config, stop=2)
    half = torch.load(tmp_path / "b" / "checkpoint.pt", weights_only=True)
    assert half["step"] == 2
    pretrain.train(tmp_path / "b", config)
    a, b = (torch.load(tmp_path / side / "checkpoint.pt", weights_only=True) for side in "ab")
    assert a["model"].keys() == b["model"].keys() and (a["step"], a["tokens"]) == (b["step"], b["tokens"])
    assert all(torch.equal(a["model"][name], b["model"][name]) for name in a["model"])
    assert not all(torch.equal(half["model"][name], b["model"][name]) for name in half["model"])
    log = (tmp_path / "b" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [2, 4]
    spec = model_folder.from_folder(tmp_path / "a")
    loaded = models.load(spec, precisions.find("fp32"), "fp32", Recipe(), str(tmp_path / "a"), torch.device("cpu"))
    assert 1_000_000 < loaded.params < 3_000_000
