"""How many answers are decoded at once: what a cache holds, what is free, and that predictions speak of the same."""

from dataclasses import replace

import pytest
import torch
from helpers.predictions import CARD, op, predicted, trace
from test_tune_decode_architectures import ARCHITECTURES, STATES
from transformers import AutoConfig, AutoModelForCausalLM

from harness.catalog import models as catalog
from harness.predict import answering
from harness.predict.answering import cache_size
from harness.train.compat import import_peft
from harness.train.ops import attention
from harness.tune import decode
from harness.tune.decode_batches import Room
from harness.tune.decode_steps import Steps, Way, plain_attention

_NO_CACHE = ("bart", "mamba", "recurrent_gemma", "rwkv")  # decoded without one, or with one of no layers


def tensors_of(value):
    """All tensors in what a cache's layer holds."""
    if isinstance(value, torch.Tensor):
        return [value] if value.is_floating_point() else []
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else []
    return [tensor for member in inner for tensor in tensors_of(member)]


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name not in _NO_CACHE])
def test_a_cache_holds_what_is_counted_of_the_config(name):
    """Keys and values to the byte where there is plain attention alone; else at least what is held."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **ARCHITECTURES[name])
    model = AutoModelForCausalLM.from_config(config).eval()
    tokens = 5  # within every window
    ids = torch.arange(3, 3 + tokens)[None]
    steps = Steps(model, ids, torch.ones_like(ids), Way())
    with torch.no_grad():
        steps.logits()
    (cache,) = steps.cache.values()
    held = sum(4 * tensor.numel() for layer in cache.layers for tensor in tensors_of(vars(layer)))
    size = cache_size(config.to_dict(), 4)
    if name in (*STATES, "deepseek_v3"):  # its latents alone, in some versions of transformers
        assert held <= tokens * size.token_bytes + size.row_bytes
    else:
        assert held == tokens * size.token_bytes
        assert size.row_bytes >= 4 * 64  # the logits


def test_rows_by_hand():
    """qwen2.5-0.5b in 16 bits: 24 layers x 2 heads x 64 x keys and values x 2 bytes = 12,288 a token, and 8 bytes of
    logits for each of 151,936 tokens after each of the four that a step reads. 40 % of 10 GB hold 100 rows of 2844
    tokens; a CPU takes 64."""
    size = cache_size(catalog.load().find("qwen2.5-0.5b").architecture, 2)
    assert (size.token_bytes, size.row_bytes) == pytest.approx((12288, 4 * 1215488), rel=1e-9)
    assert size.rows(2844, 10e9, "cuda") == int(4e9 / (2844 * 12288 + size.row_bytes)) == 100
    assert size.rows(2844, 10e9, "cpu") == 64
    assert size.rows(2844, 1e6, "cuda") == 1


def test_a_card_is_asked_what_it_has_free(monkeypatch):
    """What torch keeps for itself is let go of first, for it counts as taken."""
    calls = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append("empty"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: calls.append(str(device)) or (7 << 30, 16 << 30))
    assert decode.free_bytes(torch.device("cuda", 1)) == 7 << 30
    assert calls == ["empty", "cuda:1"]
    monkeypatch.setattr(decode.host_memory, "free_bytes", lambda: 123)
    assert decode.free_bytes(torch.device("cpu")) == 123


def test_cudnn_attends_on_no_card_while_decoding_and_again_afterwards():
    before = torch.backends.cuda.cudnn_sdp_enabled()
    with decode._without_cudnn(torch.device("cuda")):
        assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert torch.backends.cuda.cudnn_sdp_enabled() == before
    with decode._without_cudnn(torch.device("cpu")):
        assert torch.backends.cuda.cudnn_sdp_enabled() == before


@pytest.mark.parametrize("kernel", [None, "flash", "efficient", "cudnn"])
def test_prompts_are_read_by_our_attention_unless_that_is_cudnns(kernel):
    base = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **ARCHITECTURES["llama"]))
    model = import_peft().get_peft_model(base, import_peft().LoraConfig(r=2, target_modules=["q_proj"]))
    base.set_attn_implementation(attention.NAME)
    attention.set_kernel(base, kernel)
    with plain_attention(model) as own:
        assert base.config._attn_implementation != attention.NAME
        assert (own is None) == (kernel == "cudnn")
        if own:
            with own():
                assert base.config._attn_implementation == attention.NAME
        assert base.config._attn_implementation != attention.NAME
    assert base.config._attn_implementation == attention.NAME


def test_a_prediction_decodes_as_many_rows_as_the_decoder():
    spec = catalog.load().find("qwen2.5-0.5b")
    size = cache_size(spec.architecture, 2)
    card = replace(CARD, context_bytes=0)
    for weights in (1 << 30, 8 << 30, 15 << 30):
        free = card.memory_bytes - weights
        rows = answering.rows_at_once(trace(op(), weights=weights), card, size, 4096)
        assert rows == Room(size, free, "cuda").rows(2316 + 528)
    # Of all the questions of an evaluation there are no more, however large the card.
    assert answering.rows_at_once(trace(op()), replace(card, memory_bytes=1 << 45), size, 4096) == 800


@pytest.mark.parametrize(("kind", "rows", "drafted"), [("cuda", 1, 16), ("cuda", 16, 15), ("cuda", 64, 3),
                                                       ("cuda", 800, 3), ("cpu", 1, 3), ("cpu", 64, 3)])  # fmt: skip
def test_a_card_with_few_rows_is_given_more_guesses(kind, rows, drafted):
    assert answering.drafted_tokens(kind, rows) == drafted


def test_guesses_save_steps_and_cost_arithmetic():
    """By hand: three guesses leave 0.4 steps per token, each of which reads four tokens of each of 64 rows."""
    speed = answering.DecodeSpeed(read_s=0.001, step_s=0.5, cached_s=1e-6, kind="cuda")
    assert speed.seconds(1000, 100, 64) == pytest.approx(1.0 + 100 * 0.4 * (0.5 / 64 + 4 * 0.001 + 0.001))


def test_less_free_memory_makes_answers_slower():
    """The weights are read once per step for all rows, so that fewer rows cost more per answer."""
    seconds = [predicted(weights=gib << 30).answers_s for gib in (1, 12, 15)]
    assert seconds == sorted(seconds) and seconds[2] > 1.5 * seconds[0]
