"""arc-tiny's architecture and tokenizer: a standard Llama and a standard tokenizer.json, loaded like any hub model."""

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

BOS, EOS, PAD, UNKNOWN = "<s>", "</s>", "<pad>", "<unk>"
SYMBOLS = (PAD, BOS, EOS, UNKNOWN, *"0123456789", "\n", "I", "O")
WINDOW = 2048


def tokenizer() -> PreTrainedTokenizerFast:
    """One token per cell, per newline inside a grid, and per "Input n:" and "Output n:" of a prompt."""
    # The words of a prompt shrink to I and O before the text is split into characters.
    core = Tokenizer(models.WordLevel({symbol: i for i, symbol in enumerate(SYMBOLS)}, unk_token=UNKNOWN))
    core.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(r"\n*Input \d+:\n"), "I"),
            normalizers.Replace(Regex(r"\n*Output \d+:\n"), "O"),
        ]
    )
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNKNOWN,
        model_max_length=WINDOW,
        clean_up_tokenization_spaces=False,
    )


def config(hidden: int = 128, layers: int = 6, heads: int = 4) -> LlamaConfig:
    """A Llama of this width and depth; embeddings and head share their weights."""
    return LlamaConfig(
        vocab_size=len(SYMBOLS),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=WINDOW,
        tie_word_embeddings=True,
        bos_token_id=SYMBOLS.index(BOS),
        eos_token_id=SYMBOLS.index(EOS),
        pad_token_id=SYMBOLS.index(PAD),
    )


def new(seed: int = 0, **shape: int) -> LlamaForCausalLM:
    """A model with random weights; `shape` has arguments of `config`."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(config(**shape))


def save(model: LlamaForCausalLM, folder: Path) -> None:
    """Writes what from_pretrained reads: config.json, model.safetensors, tokenizer.json."""
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
