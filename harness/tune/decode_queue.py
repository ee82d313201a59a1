"""Decoding with a static cache that is filled again: who waits, who is read next, and who leaves."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from harness.tune.decode_batches import Room
from harness.tune.decode_slots import Slots
from harness.tune.decode_steps import Answer

_READ_TOKENS = 8192  # of prompts of equal length that are read together
_NARROWER = 0.75  # of the cache's columns: when all prompts need fewer, it is made anew with more rows


class Queue:
    """Prompts that wait for a row of a static cache, the longest first, so that a lack of memory shows at once."""

    def __init__(
        self,
        members: Sequence[int],
        prompts: Sequence[Sequence[int]],
        max_new_tokens: Sequence[int],
        room: Room,
        own_attention: Callable[[], Any] | None,
    ):
        self.prompts, self.room, self.own_attention = prompts, room, own_attention
        self.waiting = sorted(members, key=lambda i: -len(prompts[i]))
        self.totals = {i: len(prompts[i]) + max_new_tokens[i] for i in members}

    def run(self, model: Any, answer_of: Callable[[int], Answer], done: Callable[[Mapping[int, Answer]], None]) -> None:
        """Answers all prompts; `done` receives answers as they are finished."""
        longest = self._longest()
        slots = Slots(model, self._rows(longest), longest, own_attention=self.own_attention)
        rows: list[tuple[int, Answer]] = []  # the prompt and the answer of each live row
        while self.waiting or rows:
            finished: dict[int, Answer] = {}
            # Free rows are filled, each prompt's first token coming from the reading of it.
            self._widen(slots, rows)
            while self.waiting and slots.live < slots.rows:
                group = self._next(slots.rows - slots.live)
                tokens = slots.read([self.prompts[i] for i in group]).argmax(-1).tolist()
                rows += [(i, answer_of(i)) for i in group]
                finished |= _add(slots, rows, range(len(rows) - len(group), len(rows)), tokens)
            # One token more for every row.
            if rows:
                last = torch.tensor([answer.tokens[-1] for _, answer in rows], device=slots.device)
                finished |= _add(slots, rows, range(len(rows)), slots.step(last).argmax(-1).tolist())
            if finished:
                done(finished)

    def _next(self, most: int) -> list[int]:
        """The next prompts, all of the length of the first, without padding."""
        tokens = len(self.prompts[self.waiting[0]])
        most = min(most, max(1, _READ_TOKENS // tokens))
        count = 1
        while count < min(most, len(self.waiting)) and len(self.prompts[self.waiting[count]]) == tokens:
            count += 1
        group, self.waiting = self.waiting[:count], self.waiting[count:]
        return group

    def _widen(self, slots: Slots, rows: Sequence[tuple[int, Answer]]) -> None:
        """More rows and fewer columns, once the long prompts are answered."""
        if not self.waiting or slots.live == slots.rows:
            return
        longest = max(self._longest(), *(self.totals[i] for i, _ in rows), 1)
        wanted = self._rows(longest, len(rows))
        if longest <= _NARROWER * slots.longest and wanted > slots.rows:
            slots.resize(wanted, longest)

    def _longest(self) -> int:
        return max((self.totals[i] for i in self.waiting), default=0)

    def _rows(self, longest: int, live: int = 0) -> int:
        return min(len(self.waiting) + live, self.room.rows(longest))


def _add(slots: Slots, rows: list[tuple[int, Answer]], numbers: range, tokens: Sequence[int]) -> dict[int, Answer]:
    """Adds a token to each of the answers in rows `numbers`; those that are finished leave, and are returned."""
    over = [row for row, token in zip(numbers, tokens, strict=True) if rows[row][1].add(token)]
    finished = dict(rows[row] for row in over)
    # From the last row on, so that the row that takes a number keeps it.
    for row in reversed(over):
        slots.leave(row)
        rows[row] = rows[-1]
        rows.pop()
    return finished
