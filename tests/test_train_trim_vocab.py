"""A trimmed vocabulary: grids go through it unharmed, and the model gives the tokens that stay the logits they had."""

import random
from dataclasses import replace

import pytest
import torch
from helpers.records import TINY
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from harness.arc.encode import ENCODINGS
from harness.arc.prompt import build
from harness.arc.task import Pair
from harness.catalog import model_folder, precisions
from harness.catalog import models as catalog
from harness.errors import UserError
from harness.predict import flops
from harness.records.cell import ModelSpec, Recipe
from harness.train import model as models
from harness.train import trim_vocab

CPU = torch.device("cpu")
TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}<|assistant|>"


@pytest.fixture(scope="module")
def bpe():
    """Byte-level BPE that joins digits, as Llama 3's does, and words that no prompt has; with a chat template."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers import models as kinds

    core = Tokenizer(kinds.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    rng = random.Random(0)
    text = [f"{rng.randrange(1000):03d} {rng.randrange(100)}\n" for _ in range(500)]
    core.train_from_iterator([*text, "the quick brown fox jumps over the lazy dog " * 20, "Input Output\n\n"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>", chat_template=TEMPLATE)


def _grid(rng):
    height, width = rng.randint(1, 30), rng.randint(1, 30)
    return tuple(tuple(rng.randrange(10) for _ in range(width)) for _ in range(height))


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("which", ["bpe", "tokenizer"])
def test_random_prompts_go_through_the_trimmed_vocabulary(which, name, request):
    """Every prompt is as many tokens as before, the same text, and answers come back as the grids they were."""
    whole = request.getfixturevalue(which)
    kept = trim_vocab.used_token_ids(whole)
    trimmed = trim_vocab.TrimmedTokenizer(whole, kept)
    assert len(trimmed) == len(kept) < len(whole)
    to_text, to_grid = ENCODINGS[name]
    rng = random.Random(name)
    for _ in range(60):
        pairs = [Pair(_grid(rng), _grid(rng)) for _ in range(rng.randint(1, 4))]
        test_input, output = _grid(rng), _grid(rng)
        ours, theirs = (build(t, pairs, test_input, output, name) for t in (trimmed, whole))
        assert [kept[i] for i in ours.ids] == list(theirs.ids)
        assert ours.answer_tokens == theirs.answer_tokens
        texts = [t.decode(t(to_text(output), add_special_tokens=False)["input_ids"]) for t in (trimmed, whole)]
        assert texts[0] == texts[1]
        if which == "bpe":  # the tokenizer of characters puts spaces between, trimmed or not
            assert to_grid(texts[0]) == output


def test_what_was_cut_is_refused(bpe):
    trimmed = trim_vocab.TrimmedTokenizer(bpe, trim_vocab.used_token_ids(bpe))
    with pytest.raises(UserError, match="lacks"):
        trimmed("the quick brown fox", add_special_tokens=False)


@pytest.mark.parametrize(("kind", "tied"), [("qwen2", True), ("llama", False), ("gemma3_text", True), ("phi", False)])
def test_the_tokens_that_stay_have_the_logits_they_had(kind, tied):
    """phi's head has a bias too. A matrix that was one stays one."""
    architecture = {**TINY, "model_type": kind, "tie_word_embeddings": tied, "pad_token_id": 0}
    if kind == "phi":
        del architecture["head_dim"]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**architecture)).eval()
    if tied is False and kind == "phi":
        torch.nn.init.normal_(model.lm_head.bias)
    kept = sorted(random.Random(1).sample(range(320), 40))
    ids = torch.randint(40, (1, 12), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        before = model(input_ids=torch.tensor(kept)[ids]).logits[..., kept]
        trim_vocab.trim(model, kept)
        after = model(input_ids=ids).logits
    torch.testing.assert_close(after, before)
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) == tied
    assert model.config.vocab_size == 40


def test_a_trimmed_model_from_disk_trains(weights_folder, tokenizer):
    spec, recipe = model_folder.from_folder(weights_folder), Recipe(trim_vocab=True)
    loaded = models.load(spec, precisions.find("fp32"), "fp32", recipe, str(weights_folder), CPU)
    tokens = models.tokenizer_for(str(weights_folder), recipe)
    assert loaded.model.config.vocab_size == len(tokens) == len(trim_vocab.used_token_ids(tokenizer))
    assert loaded.unpatched == ()


@pytest.mark.parametrize("kind", ["qwen2", "phi3"])
def test_without_weights_it_is_built_with_64_tokens_and_counted_so(kind):
    """The head's product over 12 % of the tokens falls from 320 to 64 columns: 2 x 64 x 256 x 0.12 FLOPs a token less
    forward, and as many in the backward of its input."""
    architecture = {**TINY, "model_type": kind, "tie_word_embeddings": False, "pad_token_id": 0}
    spec, recipe = ModelSpec(kind, architecture, 256), Recipe()
    loaded = models.load(spec, precisions.find("fp32"), "fp32", replace(recipe, trim_vocab=True), "random", CPU)
    assert loaded.model.config.vocab_size == 64
    whole, cut = (flops.count_flops(spec, r)[0] for r in (recipe, replace(recipe, trim_vocab=True)))
    saved = whole.total(1000) - cut.total(1000)
    assert saved == pytest.approx(2 * 2 * 64 * 256 * 120, rel=0.02)


def test_it_has_another_name():
    spec = ModelSpec("qwen", {}, 256, params_m=494.0)
    once = catalog.trimmed(spec)
    assert (once.name, once.params_m) == ("qwen-trim", None)
    assert catalog.trimmed(once) == once
