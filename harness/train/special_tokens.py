"""Special tokens of a model and its tokenizer together: which end an answer, and whether all have an embedding."""

from typing import Any

from harness.arc.prompt import turn_end
from harness.errors import UserError
from harness.train.trim_vocab import TrimmedTokenizer, prompt_token_ids


def end_ids(tokenizer: Any, model: Any) -> frozenset[int]:
    """The tokens that end an answer: the tokenizer's, those of the model's configs, and the chat template's.

    Training teaches the tokenizer's; a model that was trained on chats may write another until it is tuned.
    """
    ids = {tokenizer.eos_token_id}
    for config in (model.config, model.config.get_text_config(), getattr(model, "generation_config", None)):
        of_config = getattr(config, "eos_token_id", None)
        ids.update(of_config if isinstance(of_config, list | tuple) else [of_config])
    # A chat template is of the whole tokenizer.
    if isinstance(tokenizer, TrimmedTokenizer):
        end = turn_end(tokenizer.tokenizer)
        ids.add(None if end is None else tokenizer.new_id.get(end))
    else:
        ids.add(turn_end(tokenizer))
    # A config's default may be the id of a piece of text in this tokenizer, which ends nothing.
    special = {tokenizer.eos_token_id, *tokenizer.added_tokens_decoder}
    return frozenset(i for i in ids if i in special)


def must_fit(tokenizer: Any, model: Any) -> None:
    """Raises UserError where prompts or answers have tokens without a row in the model's embedding."""
    rows = model.get_input_embeddings().weight.shape[0]
    if isinstance(tokenizer, TrimmedTokenizer) or len(tokenizer) <= rows:
        return
    # Tokens beyond the embedding do no harm while no prompt has them, as a token for padding.
    beyond = max(prompt_token_ids(tokenizer))
    if beyond >= rows:
        name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        raise UserError(
            f"the tokenizer {name} has token {beyond}, but the model's embedding only {rows} rows, so they do not "
            "belong together; put the model's own tokenizer beside its weights"
        )
