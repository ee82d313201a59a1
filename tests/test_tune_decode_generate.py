"""The decoder against transformers' own `generate`: greedy, the same dtype, to the token."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from harness.train.compat import import_peft, quiet
from harness.train.ops import attention
from harness.tune import decode
from harness.tune.decode_adapter import adapter_for_answers
from harness.tune.decode_batches import TokenLimit
from harness.tune.decode_check import way_of
from harness.tune.decode_steps import left_padded

END, LIMIT = 2, 24
SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
         "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": END}  # fmt: skip
ARCHITECTURES = {
    "llama": SIZES,
    "qwen2": SIZES,
    "qwen3": {**SIZES, "head_dim": 8},
    "gemma2": {**SIZES, "head_dim": 8, "sliding_window": 16, "query_pre_attn_scalar": 8},
    "phi3": SIZES,
}


class Tokens:
    """A tokenizer whose text is its ids."""

    eos_token_id, chat_template = END, None
    added_tokens_decoder = {END: "</s>"}  # noqa: RUF012

    def decode(self, ids):
        return " ".join(map(str, ids))


def tuned(name, dtype, ours=False):
    """Random weights that make texts of some variety, with an adapter as large as a trained one."""
    torch.manual_seed(3)
    base = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **ARCHITECTURES[name]), dtype=dtype).eval()
    with torch.no_grad():
        for p in base.parameters():
            if p.dim() == 2:
                p.mul_(6)
    base.requires_grad_(False)
    if ours:
        base.set_attn_implementation(attention.NAME)
    targets = ["qkv_proj", "o_proj"] if name == "phi3" else ["q_proj", "k_proj", "v_proj", "o_proj"]
    with quiet():
        model = import_peft().get_peft_model(base, import_peft().LoraConfig(r=4, lora_alpha=8, target_modules=targets))
    for where, p in model.named_parameters():
        if "lora_" in where:
            p.data.normal_(0, 0.2)
    return model


def generated(model, prompts, end):
    """What `generate` writes before `end`, "" without one; all of it if `end` is None. One call for all prompts, which
    are of several lengths and padded on the left."""
    ids, mask = left_padded(prompts, 0, torch.device("cpu"))
    before = model.get_base_model().config._attn_implementation
    model.get_base_model().set_attn_implementation("eager")
    model.eval()
    with torch.no_grad():
        out = model.generate(input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=LIMIT,
                             eos_token_id=end, pad_token_id=0)  # fmt: skip
    model.get_base_model().set_attn_implementation(before)
    rows = out[:, ids.shape[1] :].tolist()
    if end is None:
        return [Tokens().decode(row) for row in rows]
    return [Tokens().decode(row[: row.index(end)]) if end in row else "" for row in rows]


@pytest.mark.parametrize("ours", [False, True], ids=["plain", "our attention"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_same_tokens_as_generate(name, ours):
    """Twenty prompts of 3 to 40 tokens in a cache of four rows, in which some answers end soon and some never."""
    model = tuned(name, torch.float32, ours)
    assert way_of(model.get_base_model().config).static
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(3, 41, (20,), generator=generator).tolist()
    prompts = [torch.randint(3, 64, (n,), generator=generator).tolist() for n in lengths]
    # An end that some answers meet: the token that is nearest to being in half of them.
    endless = [text.split() for text in generated(model, prompts, None)]
    shares = {token: sum(token in text[1:] for text in endless) for text in endless for token in text}
    tokens = Tokens()
    tokens.eos_token_id = int(min(sorted(shares), key=lambda token: abs(shares[token] - 10)))
    tokens.added_tokens_decoder = {tokens.eos_token_id: "</s>"}
    expected = generated(model, prompts, tokens.eos_token_id)
    assert 3 <= sum(map(bool, expected)) <= 17 and len(set(expected)) > 3
    limits = [LIMIT] * len(prompts)
    assert decode.greedy(model, tokens, prompts, limits, limit=TokenLimit(4 * 64)) == expected
    assert decode.greedy(model, tokens, prompts, limits) == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_base_is_the_same_to_the_bit_after_answering(dtype):
    model = tuned("llama", dtype)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    forwards = {name: module.forward for name, module in model.named_modules()}
    decode.greedy(model, Tokens(), [[5, 6, 7], [8, 9]], [6, 6])
    with pytest.raises(IndexError):
        decode.greedy(model, Tokens(), [[10**6]], [3])  # no such token
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert {name: module.forward for name, module in model.named_modules()} == forwards


@pytest.mark.parametrize(("dtype", "share"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)], ids=str)
@pytest.mark.parametrize("merge_bytes", [0, 2**30])
def test_the_adapter_gives_the_same_logits_while_answering(dtype, share, merge_bytes):
    model = tuned("llama", dtype).eval()
    ids = torch.arange(3, 23)[None]
    with torch.no_grad():
        expected = model(input_ids=ids).logits.float()
        with model.disable_adapter():
            base = model(input_ids=ids).logits.float()
        with adapter_for_answers(model, merge_bytes):
            logits = model(input_ids=ids).logits.float()
    assert (logits - expected).abs().max() <= share * expected.abs().max()
    assert (base - expected).abs().max() > 0.1 * expected.abs().max()  # it does something


def test_a_small_adapter_is_not_rounded_away_in_16_bits():
    """B A below half a unit in the last place of every weight: merged into bf16 it would be gone."""
    model = tuned("llama", torch.bfloat16).eval()
    for where, p in model.named_parameters():
        if "lora_B" in where:
            p.data.mul_(3e-4)
        if "lora_A" in where:
            p.data.abs_()
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    weight = layer.base_layer.weight
    delta = (2 * layer.lora_B.default.weight @ layer.lora_A.default.weight).detach()
    merged = (weight.float() + delta).bfloat16()
    assert (merged == weight).float().mean() > 0.9
    x = torch.randn(4096, 1, 32, generator=torch.Generator().manual_seed(0)).abs().bfloat16()
    with torch.no_grad(), adapter_for_answers(model):
        base = layer.base_layer(x).float()
        added = (layer(x).float() - base).mean((0, 1))
        by_merged = (torch.nn.functional.linear(x, merged).float() - base).mean((0, 1))
    expected = (x.float() @ delta.t()).mean((0, 1))

    def share(part):  # of what the adapter should add
        return ((part @ expected) / (expected @ expected)).item()

    # Where the base's output is large, the sum is rounded back to it.
    assert share(added) > max(0.4, 2 * share(by_merged))
