"""Predictions over views: every question asked in several views, each answer taken back, and their likelihoods."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from harness.arc import augment
from harness.arc.encode import ENCODINGS
from harness.arc.examples import questions
from harness.arc.prompt import Prompt, fitted
from harness.arc.task import LARGEST, Grid, Solutions, Task
from harness.train.batches import Batch
from harness.train.compat import quiet
from harness.train.losses import answer_loss
from harness.train.ops import attention

Answerer = Callable[[Sequence[Prompt], Sequence[int]], list[str]]
_CACHE_BYTES = 2**28
_LOOK_EVERY = 16  # tokens
_LONGEST_ANSWER = 2  # times the longest output that was shown, and 32 tokens: what is longer counts as not ended


@dataclass(frozen=True)
class Predictions:
    """`answers` by task: for each test input what each view answered, taken back; None where it was no grid.

    `skipped` counts the questions in a view that did not fit the context, `seconds` all decoding.
    """

    answers: dict[str, list[list[Grid | None]]]
    asked: int
    skipped: int
    seconds: float


def predict(
    tasks: Sequence[Task],
    tokenizer: Any,
    answer: Answerer,
    views: int,
    encoding: str,
    context: int,
    seed: int = 0,
    shorten: bool = True,
) -> Predictions:
    """Asks every test input of `tasks` in `views` views, through `answer`: prompts and max_new_tokens to texts.

    A question that is too long for `context` loses demonstrations, or without `shorten` is not asked.
    """
    _, decode = ENCODINGS[encoding]
    answers: dict[str, list[list[Grid | None]]] = {}
    todo: list[tuple[list[Grid | None], int, augment.View, Prompt, int]] = []
    skipped = 0
    for task in tasks:
        drawn = augment.views(views, len(task.demonstrations), seed)
        answers[task.id] = [[None] * views for _ in task.test_inputs]
        for i, view in enumerate(drawn):
            seen = view.of(task)
            max_new_tokens = max_new_tokens_for(seen, tokenizer, encoding)
            for slot, (shown, test_input) in zip(answers[task.id], questions(seen), strict=True):
                prompt = fitted(tokenizer, shown, test_input, None, encoding, context, shorten, max_new_tokens)
                if prompt is None:
                    skipped += 1
                else:
                    todo.append((slot, i, view, prompt, max_new_tokens))
    start = time.perf_counter()
    texts = answer([prompt for *_, prompt, _ in todo], [limit for *_, limit in todo])
    seconds = time.perf_counter() - start
    for (slot, i, view, _, _), text in zip(todo, texts, strict=True):
        grid = decode(text)
        slot[i] = None if grid is None else view.invert(grid)
    return Predictions(answers, len(todo), skipped, seconds)


def joined(parts: Sequence[Predictions], order: Sequence[str]) -> Predictions:
    """What several processes answered at the same time, each some tasks of `order`."""
    answers = {name: each for part in parts for name, each in part.answers.items()}
    asked, skipped = (sum(getattr(part, name) for part in parts) for name in ("asked", "skipped"))
    return Predictions({name: answers[name] for name in order}, asked, skipped, max(part.seconds for part in parts))


def max_new_tokens_for(task: Task, tokenizer: Any, encoding: str) -> int:
    """Tokens that an answer to `task` may take."""
    encode, _ = ENCODINGS[encoding]
    outputs = (encode(pair.output) for pair in task.demonstrations)
    longest = max(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in outputs)
    return _LONGEST_ANSWER * longest + 32


def greedy(
    model: torch.nn.Module,
    tokenizer: Any,
    batch_tokens: int | None = None,
    on_batch: Callable[[int, int], None] = lambda finished, total: None,
) -> Answerer:
    """Greedy decoding with a KV cache, in batches of prompts of like length.

    A batch holds `batch_tokens` tokens at most, the answers' included; by default as many as keep the cache
    under a quarter of a GiB, so that a small model is not held up by many small steps. `on_batch` hears how many are
    answered, of how many.
    """
    device = next(model.parameters()).device
    batch_tokens = batch_tokens or max(2048, min(32768, _CACHE_BYTES // _cache_bytes_a_token(model)))
    end = tokenizer.eos_token_id
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end

    def answer(prompts: Sequence[Prompt], max_new_tokens: Sequence[int]) -> list[str]:
        texts, finished = [""] * len(prompts), 0
        base = model.get_base_model()
        model.eval()
        base.set_attn_implementation("sdpa")  # padded batches need masks
        try:
            with torch.no_grad(), quiet():
                for chosen in _batches(prompts, max_new_tokens, batch_tokens):
                    ids, mask = _left_padded([prompts[i].ids for i in chosen], pad, device)
                    said_of = _decode(model, ids, mask, [max_new_tokens[i] for i in chosen], end, tokenizer.decode)
                    for i, said in zip(chosen, said_of, strict=True):
                        texts[i] = tokenizer.decode(said[: said.index(end)]) if end in said else ""
                    finished += len(chosen)
                    on_batch(finished, len(prompts))
        finally:
            base.set_attn_implementation(attention.NAME)
            with quiet():
                model.train()
        return texts

    return answer


def _decode(
    model: torch.nn.Module,
    ids: torch.Tensor,
    mask: torch.Tensor,
    max_new_tokens: Sequence[int],
    end: int,
    text: Callable[[list[int]], str],
) -> list[list[int]]:
    """The most likely token again and again: for each row of `ids` until `end`, or for its `max_new_tokens`.

    What can be no grid any more (see `_hopeless`) is not waited for; now and then `text` is made of it to see.

    Rows that are finished leave the batch and its cache, so that one endless answer is not waited for by all.
    """
    cache, said = DynamicCache(config=model.get_base_model().config), [[] for _ in max_new_tokens]
    live = list(range(len(max_new_tokens)))
    at = mask.cumsum(1) - 1
    step = {"input_ids": ids, "position_ids": at.clamp(min=0)}
    at = at[:, -1:]
    while live:
        logits = model(**step, attention_mask=mask, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        chosen = logits[:, -1].argmax(-1)
        going = []
        for row, token in enumerate(chosen.tolist()):
            done = said[live[row]]
            if len(done) < max_new_tokens[live[row]] and (not done or done[-1] != end):
                done.append(token)
            lost = len(done) % _LOOK_EVERY == 0 and _hopeless(text(done))
            if done[-1] != end and len(done) < max_new_tokens[live[row]] and not lost:
                going.append(row)
        if not going:
            break
        if len(going) <= 0.8 * len(live):  # taking rows out copies the cache
            kept = torch.tensor(going, device=ids.device)
            cache.batch_select_indices(kept)
            chosen, mask, at = chosen[kept], mask[kept], at[kept]
            live = [live[row] for row in going]
        at = at + 1
        mask = torch.cat([mask, mask.new_ones(len(live), 1)], 1)
        step = {"input_ids": chosen[:, None], "position_ids": at}
    return said


def _hopeless(text: str) -> bool:
    """Whether no grid begins like `text`: a row is longer, or there are more rows, than any encoding writes."""
    lines = text.strip("\n").split("\n")
    return len(lines) > LARGEST + 1 or max(map(len, lines)) > 2 * LARGEST + 3


def losses(
    model: torch.nn.Module,
    tokenizer: Any,
    tasks: Sequence[Task],
    solutions: Solutions,
    encoding: str,
    context: int,
    shorten: bool = True,
) -> list[tuple[float, int]]:
    """(nats a token, tokens) of each true test output that fits, in the plain view: what evaluating may see, alone."""
    device, found = next(model.parameters()).device, []
    model.eval()
    with torch.no_grad():
        for task in tasks:
            for (shown, test_input), output in zip(questions(task), solutions.get(task.id, ()), strict=False):
                prompt = fitted(tokenizer, shown, test_input, output, encoding, context, shorten)
                if prompt:
                    ids = torch.tensor([prompt.ids], device=device)
                    found.append((answer_loss(model, Batch(ids, prompt.answer_tokens)).item(), prompt.answer_tokens))
    with quiet():
        model.train()
    return found


def _cache_bytes_a_token(model: torch.nn.Module) -> int:
    """Keys and values of all layers, in the dtype of the embeddings."""
    config = model.get_base_model().config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * width * model.get_input_embeddings().weight.element_size()


def _batches(prompts: Sequence[Prompt], max_new_tokens: Sequence[int], tokens: int) -> list[list[int]]:
    """Indices in batches, the longest prompts first, so that what runs out of memory does so at once."""
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i].ids) - max_new_tokens[i])
    out: list[list[int]] = []
    for i in order:
        widest = len(prompts[out[-1][0]].ids) + max_new_tokens[out[-1][0]] if out else 0
        if out and (len(out[-1]) + 1) * widest <= tokens:
            out[-1].append(i)
        else:
            out.append([i])
    return out


def _left_padded(rows: Sequence[Sequence[int]], pad: int, device) -> tuple[torch.Tensor, torch.Tensor]:
    """ids and mask, int64 [rows, longest]."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros(len(rows), width, dtype=torch.int64)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.tensor(row)
        mask[i, width - len(row) :] = 1
    return ids.to(device), mask.to(device)
