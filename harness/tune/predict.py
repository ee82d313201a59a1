"""Predictions over views: every question asked in several views, each answer taken back, and their likelihoods."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from harness.arc import augment
from harness.arc.encode import ENCODINGS
from harness.arc.prompt import Prompt, fitted
from harness.arc.tasks import Grid, Puzzle, Solutions
from harness.train import attention
from harness.train.batches import Batch
from harness.train.libraries import quiet
from harness.train.step import answer_loss
from harness.tune.sets import questions

Answerer = Callable[[Sequence[Prompt], Sequence[int]], list[str]]
_LONGEST_ANSWER = 2  # times the longest output that was shown, and 32 tokens: what is longer counts as not ended


@dataclass(frozen=True)
class Predictions:
    """`answers` by task: for each test input what each view answered, taken back; None where it was no grid.

    `unasked` counts the questions in a view that did not fit the context, `seconds` all decoding.
    """

    answers: dict[str, list[list[Grid | None]]]
    asked: int
    unasked: int
    seconds: float


def predict(
    puzzles: Sequence[Puzzle], tokenizer: Any, answer: Answerer, views: int, encoding: str, context: int, seed: int = 0
) -> Predictions:
    """Asks every test input of `puzzles` in `views` views, through `answer`: prompts and room to texts."""
    there, back = ENCODINGS[encoding]
    answers: dict[str, list[list[Grid | None]]] = {}
    todo: list[tuple[list[Grid | None], int, augment.View, Prompt, int]] = []
    unasked = 0
    for puzzle in puzzles:
        drawn = augment.views(views, len(puzzle.pairs), seed)
        answers[puzzle.id] = [[None] * views for _ in puzzle.test_inputs]
        for i, view in enumerate(drawn):
            seen = view.of(puzzle)
            longest = max(len(tokenizer(there(p.output), add_special_tokens=False)["input_ids"]) for p in seen.pairs)
            room = _LONGEST_ANSWER * longest + 32
            for slot, (pairs, asked) in zip(answers[puzzle.id], questions(seen), strict=True):
                prompt = fitted(tokenizer, pairs, asked, None, encoding, context, drop_pairs=True, room=room)
                if prompt is None:
                    unasked += 1
                else:
                    todo.append((slot, i, view, prompt, room))
    start = time.perf_counter()
    texts = answer([prompt for *_, prompt, _ in todo], [room for *_, room in todo])
    seconds = time.perf_counter() - start
    for (slot, i, view, _, _), text in zip(todo, texts, strict=True):
        grid = back(text)
        slot[i] = None if grid is None else view.invert(grid)
    return Predictions(answers, len(todo), unasked, seconds)


def greedy(model: torch.nn.Module, tokenizer: Any, batch_tokens: int = 8192) -> Answerer:
    """Greedy decoding with a KV cache, in batches of prompts of like length, `batch_tokens` at most with their room."""
    device = next(model.parameters()).device
    end = tokenizer.eos_token_id
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end

    def answer(prompts: Sequence[Prompt], rooms: Sequence[int]) -> list[str]:
        texts = [""] * len(prompts)
        base = model.get_base_model()
        model.eval()
        base.set_attn_implementation("sdpa")  # padded batches need masks
        try:
            with torch.no_grad(), quiet():
                for chosen in _batches(prompts, rooms, batch_tokens):
                    ids, mask = _left_padded([prompts[i].ids for i in chosen], pad, device)
                    room = max(rooms[i] for i in chosen)
                    out = model.generate(
                        input_ids=ids,
                        attention_mask=mask,
                        max_new_tokens=room,
                        do_sample=False,
                        pad_token_id=pad,
                        eos_token_id=end,
                    )
                    for i, said in zip(chosen, out[:, ids.shape[1] :].tolist(), strict=True):
                        texts[i] = tokenizer.decode(said[: said.index(end)]) if end in said else ""
        finally:
            base.set_attn_implementation(attention.NAME)
            with quiet():
                model.train()
        return texts

    return answer


def losses(
    model: torch.nn.Module, tokenizer: Any, puzzles: Sequence[Puzzle], solutions: Solutions, encoding: str, context: int
) -> list[tuple[float, int]]:
    """(nats a token, tokens) of each true test output that fits, in the plain view: what evaluating may see, alone."""
    device, found = next(model.parameters()).device, []
    model.eval()
    with torch.no_grad():
        for puzzle in puzzles:
            for (pairs, asked), output in zip(questions(puzzle), solutions.get(puzzle.id, ()), strict=False):
                prompt = fitted(tokenizer, pairs, asked, output, encoding, context, drop_pairs=True)
                if prompt:
                    ids = torch.tensor([prompt.ids], device=device)
                    found.append((answer_loss(model, Batch(ids, prompt.answer)).item(), prompt.answer))
    with quiet():
        model.train()
    return found


def _batches(prompts: Sequence[Prompt], rooms: Sequence[int], tokens: int) -> list[list[int]]:
    """Indices in batches, the longest prompts first, so that what runs out of memory does so at once."""
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i].ids) - rooms[i])
    out: list[list[int]] = []
    for i in order:
        widest = len(prompts[out[-1][0]].ids) + rooms[out[-1][0]] if out else 0
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
