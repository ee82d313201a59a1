"""Trimming the vocabulary to the tokens that ARC prompts use, as the ARChitects did (Kaggle's ARC Prize 2024).

A small Qwen keeps a quarter of its parameters in the rows of 151,000 tokens, of which grids need a hundred. The trimmed
model is another model: the softmax runs over the kept tokens alone, and it can write nothing but grids.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import Parameter

from harness.arc.encode import ENCODINGS
from harness.arc.prompt import build, turn_end
from harness.arc.task import LARGEST, Pair
from harness.errors import UserError

RANDOM_SIZE = 64  # tokens of a trimmed model with random weights, which has no tokenizer: the ARChitects' number
_MOST_PAIRS = 20


def used_token_ids(tokenizer: Any) -> list[int]:
    """The sorted ids of `prompt_token_ids`, and of the special tokens."""
    names = ("bos_token_id", "pad_token_id", "unk_token_id")
    special = {i for name in names if (i := getattr(tokenizer, name)) is not None}
    return sorted(
        prompt_token_ids(tokenizer) | special | ({end} if (end := turn_end(tokenizer)) is not None else set())
    )


def prompt_token_ids(tokenizer: Any) -> set[int]:
    """The ids of every token that a prompt or an answer may hold, in any encoding.

    These are the tokens of the words around grids, the end of text, and all whose text is made of grids' characters
    alone: a tokenizer may join several cells into one token.
    """
    # Tokens made of grids' characters alone.
    grid = tuple(tuple((i + j) % 10 for j in range(LARGEST)) for i in range(LARGEST))
    characters = {c for encode, _ in ENCODINGS.values() for c in encode(grid)}
    vocabulary = range(len(tokenizer))
    texts = tokenizer.batch_decode([[i] for i in vocabulary], clean_up_tokenization_spaces=False)
    kept = {i for i, text in zip(vocabulary, texts, strict=True) if text and set(text) <= characters}
    # Tokens of the words around grids: they differ with the number of demonstrations.
    smallest = ((0,),)
    for name in ENCODINGS:
        for count in range(1, _MOST_PAIRS + 1):
            for example in (smallest, grid):
                kept.update(build(tokenizer, [Pair(example, example)] * count, example, example, name).ids)
    return kept | {tokenizer.eos_token_id}


def trim(model: Any, kept: Sequence[int]) -> None:
    """Cuts embeddings and head of `model`, tied or not, to the rows `kept`: row i is then token kept[i]."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied, rows = head.weight is embedding.weight, torch.tensor(kept, device=embedding.weight.device)
    # Rows are copied, so that the full matrices can be freed.
    embedding.weight = Parameter(embedding.weight.detach()[rows], requires_grad=False)
    embedding.num_embeddings, embedding.padding_idx = len(kept), None
    head.weight = embedding.weight if tied else Parameter(head.weight.detach()[rows], requires_grad=False)
    head.out_features = len(kept)
    if head.bias is not None:
        head.bias = Parameter(head.bias.detach()[rows], requires_grad=False)
    model.config.get_text_config().vocab_size = len(kept)
    # Special tokens have other ids now, or none.
    new_id = {token: i for i, token in enumerate(kept)}
    configs = (model.config, model.config.get_text_config(), model.generation_config)
    for config in {id(config): config for config in configs if config is not None}.values():
        for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
            setattr(config, name, _renamed(getattr(config, name, None), new_id))


def _renamed(ids: int | list[int] | None, new_id: dict[int, int]) -> int | list[int] | None:
    """`ids` of special tokens, one or several, as the trimmed model has them, without those that were cut."""
    if isinstance(ids, list):
        return [new_id[i] for i in ids if i in new_id] or None
    return None if ids is None else new_id.get(ids)


class TrimmedTokenizer:
    """A transformers tokenizer for a trimmed model: its id i is token kept[i] of the full `tokenizer`."""

    def __init__(self, tokenizer: Any, kept: Sequence[int]):
        self.tokenizer, self.kept = tokenizer, list(kept)
        self.new_id = {token: i for i, token in enumerate(kept)}
        self.chat_template, self.bos_token = tokenizer.chat_template, tokenizer.bos_token
        self.name_or_path = tokenizer.name_or_path
        self.eos_token_id = self.new_id[tokenizer.eos_token_id]
        self.pad_token_id = self.new_id.get(tokenizer.pad_token_id)
        added = tokenizer.added_tokens_decoder.items()
        self.added_tokens_decoder = {self.new_id[i]: token for i, token in added if i in self.new_id}

    def __len__(self) -> int:
        return len(self.kept)

    def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
        """Raises UserError for a text with a token that was cut: prompts have none."""
        ids = self.tokenizer(text, **options)["input_ids"]
        for token in ids:
            if token not in self.new_id:
                text = self.tokenizer.decode([token])
                raise UserError(f"the trimmed vocabulary lacks {text!r}; leave --trim-vocab out")
        return {"input_ids": [self.new_id[token] for token in ids]}

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode([self.kept[i] for i in ids])

    def apply_chat_template(self, *messages: Any, **options: Any) -> str:
        return self.tokenizer.apply_chat_template(*messages, **options)
