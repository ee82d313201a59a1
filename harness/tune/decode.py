"""Greedy decoding of many prompts at once, and the loss of given answers. Works on tokens and knows no ARC."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from harness.hardware import host_memory
from harness.predict.answering import CacheSize, cache_size
from harness.train.batches import Batch
from harness.train.compat import quiet
from harness.train.losses import answer_loss
from harness.train.special_tokens import end_ids
from harness.tune.decode_adapter import adapter_for_answers
from harness.tune.decode_batches import Room, TokenLimit, batches, ways_of
from harness.tune.decode_queue import Queue
from harness.tune.decode_steps import Answer, Steps, left_padded, plain_attention

_MERGED_SHARE = 0.2  # of the free memory, for copies of matrices with the adapter in them


def greedy(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: Sequence[int],
    *,
    hopeless: Callable[[str], bool] = lambda text: False,
    limit: TokenLimit | None = None,
    on_texts: Callable[[dict[int, str]], None] = lambda texts: None,
) -> list[str]:
    """The text that `model`, a PeftModel, writes after each of `prompts` (token ids); "" where it did not end in time.

    Decodes in the way that the architecture allows (harness.tune.decode_check), as a rule with a static cache whose
    rows are filled again, in order of length. At most `limit` tokens are held at once; by default as many as the free
    memory allows (harness.predict.answering). Where memory runs out all the same, the prompts without a text are
    decoded with half of the rows, and so on; raises torch.OutOfMemoryError where one row is too much. An answer whose
    beginning is `hopeless` is abandoned. `on_texts` receives texts by the index of their prompts, as soon as they are
    finished.
    """
    device, base = next(model.parameters()).device, model.get_base_model()
    free = free_bytes(device)
    cache = cache_size_of(model)
    limit = limit or TokenLimit()
    ends, pad = end_ids(tokenizer, base), tokenizer.eos_token_id  # padding is masked: any token with an embedding
    ways = ways_of(base.config, prompts, max_new_tokens)
    texts: dict[int, str] = {}

    def answer_of(i: int) -> Answer:
        return Answer(max_new_tokens[i], ends, lambda ids: hopeless(tokenizer.decode(ids)))

    def done(answers: Mapping[int, Answer]) -> None:
        new = {i: tokenizer.decode(answer.tokens[:-1]) if answer.ended else "" for i, answer in answers.items()}
        texts.update(new)
        on_texts(new)

    def answer_all(left: Sequence[int], room: Room, own_attention: Callable[[], Any] | None) -> None:
        # A length that changes a rotary embedding does so for all rows: other ways have caches of their own.
        for way in dict.fromkeys(ways[i] for i in left if ways[i].static):
            members = [i for i in left if ways[i] == way]
            Queue(members, prompts, max_new_tokens, room, way, own_attention).run(model, answer_of, done)
        others = [i for i in left if not ways[i].static]
        for members in batches(prompts, max_new_tokens, room, ways, others):
            steps = Steps(model, *left_padded([prompts[i] for i in members], pad, device), ways[members[0]])
            answers = {i: answer_of(i) for i in members}
            try:
                _decode(steps, list(answers.values()))
            finally:
                # Of a batch that was stopped, what is finished counts.
                done({i: answer for i, answer in answers.items() if answer.finished})

    with answering(model, free) as own_attention:
        while left := [i for i in range(len(prompts)) if i not in texts]:
            room = Room(cache, free, device.type, limit.tokens)
            if reason := limit.try_work(partial(answer_all, left, room, own_attention)):
                # Of those that are still to be answered: longer ones may be done.
                lengths = [len(prompts[i]) + max_new_tokens[i] for i in left if i not in texts]
                limit.give_way(reason, min(len(lengths), room.rows(max(lengths))), max(lengths))
    return [texts[i] for i in range(len(prompts))]


@contextmanager
def answering(model: Any, free: float) -> Iterator[Callable[[], Any] | None]:
    """`model`, a PeftModel, as it answers: no gradients, no dropout, no casts of the adapter, plain attention.

    Copies of matrices with the adapter in them take a fifth of the `free` bytes at most. Gives the context of its own
    attention for whole prompts, or None. Afterwards it trains as before.
    """
    device = next(model.parameters()).device
    model.eval()
    try:
        with (
            torch.no_grad(),
            quiet(),
            _without_cudnn(device),
            adapter_for_answers(model, _MERGED_SHARE * free),
            plain_attention(model) as own_attention,
        ):
            yield own_attention
    finally:
        with quiet():
            model.train()


def losses(model: Any, sequences: Sequence[tuple[Sequence[int], int]]) -> list[tuple[float, int]]:
    """(nats per token, answer tokens) for each of `sequences`, which are (token ids, answer tokens at their end)."""
    device = next(model.parameters()).device
    model.eval()
    with torch.no_grad():
        pairs = [(answer_loss(model, Batch(torch.tensor([ids], device=device), n)).item(), n) for ids, n in sequences]
    with quiet():
        model.train()
    return pairs


def free_bytes(device: torch.device) -> int:
    """Memory of `device` that tensors can still take; on a card what torch keeps for later counts as free."""
    if device.type != "cuda":
        return host_memory.free_bytes()
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(device)[0]


def cache_size_of(model: Any) -> CacheSize:
    """What a row holds while `model`, a PeftModel, answers."""
    embedding = model.get_input_embeddings().weight
    config = model.get_base_model().config.get_text_config().to_dict()
    return cache_size(config, embedding.element_size(), embedding.shape[0])


def _decode(steps: Steps, answers: Sequence[Answer]) -> None:
    """Adds the most likely tokens to the answer of each row of `steps`, until all are finished.

    Finished rows leave the batch and its cache, so that one endless answer does not cost the time of the whole batch.
    """
    rows = list(answers)  # of each row of the batch
    while True:
        tokens = steps.logits().argmax(-1)
        for answer, token in zip(rows, tokens.tolist(), strict=True):
            # A finished row may still be in the batch (see below); it gets no more tokens.
            if not answer.finished:
                answer.add(token)
        live = [row for row, answer in enumerate(rows) if not answer.finished]
        if not live:
            break
        steps.append(tokens, torch.tensor([not answer.finished for answer in rows], device=tokens.device))
        # Removing rows copies the cache, so wait until a fifth of them is finished.
        if steps.way.leaves and len(live) <= 0.8 * len(rows):
            steps.keep(torch.tensor(live, device=tokens.device))
            rows = [rows[row] for row in live]


@contextmanager
def _without_cudnn(device: torch.device) -> Iterator[None]:
    """cuDNN's attention makes a plan for every new length, and decoding has a new one at every token."""
    before = torch.backends.cuda.cudnn_sdp_enabled()
    try:
        if device.type == "cuda":
            torch.backends.cuda.enable_cudnn_sdp(False)
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)
