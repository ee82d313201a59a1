"""Decoding with a static cache that is filled again: who waits, who is read next, and who leaves."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.tune.decode_batches import Room
from harness.tune.decode_slots import Slots
from harness.tune.decode_steps import Answer, Way
from harness.tune.drafts import Draft, Worth

_READ_TOKENS = 8192  # of prompts of equal length that are read together
_NARROWER = 0.75  # of the cache's columns: when all prompts need fewer, it is made anew with more rows


@dataclass
class _Row:
    """A live row of the cache: the number of its prompt, its answer so far, and how that may go on."""

    prompt: int
    answer: Answer
    draft: Draft

    def add(self, token: int) -> bool:
        """Adds a token; whether it is the answer's last."""
        self.draft.add(token)
        return self.answer.add(token)


class Queue:
    """Prompts that wait for a row of a static cache, the longest first, so that a lack of memory shows at once."""

    def __init__(
        self,
        members: Sequence[int],
        prompts: Sequence[Sequence[int]],
        max_new_tokens: Sequence[int],
        room: Room,
        way: Way,
        own_attention: Callable[[], Any] | None,
    ):
        self.prompts, self.room, self.way, self.own_attention = prompts, room, way, own_attention
        self.waiting = sorted(members, key=lambda i: -len(prompts[i]))
        self.worth = Worth(room.kind)
        self.totals = {i: len(prompts[i]) + max_new_tokens[i] for i in members}

    def run(self, model: Any, answer_of: Callable[[int], Answer], done: Callable[[Mapping[int, Answer]], None]) -> None:
        """Answers all prompts; `done` receives answers as they are finished."""
        longest = self._longest()
        own, way = self.own_attention, self.way
        slots = Slots(model, self._rows(longest), longest, own_attention=own, gaps=way.gaps, grouped=way.grouped)
        rows: list[_Row] = []
        while self.waiting or rows:
            finished: dict[int, Answer] = {}
            # Free rows are filled, each prompt's first token coming from the reading of it.
            self._widen(slots, rows)
            while self.waiting and slots.live < slots.rows:
                group = self._next(slots.rows - slots.live)
                tokens = slots.read([self.prompts[i] for i in group]).argmax(-1).tolist()
                answers = map(answer_of, group)
                rows += [_Row(i, a, Draft(self.prompts[i], a.limit)) for i, a in zip(group, answers, strict=True)]
                finished |= _add(slots, rows, range(len(rows) - len(group), len(rows)), [[token] for token in tokens])
            # For every row one token more, and those of its draft that are what the model says too.
            if rows:
                finished |= _add(slots, rows, range(len(rows)), self._step(slots, rows))
            if finished:
                done(finished)

    def _step(self, slots: Slots, rows: Sequence[_Row]) -> list[list[int]]:
        """The next tokens of every row, at least one."""
        most = self.worth.most(len(rows))
        drafts = [row.draft.next(min(most, row.answer.left - 1)) for row in rows]
        tokens = [[row.answer.tokens[-1], *draft] for row, draft in zip(rows, drafts, strict=True)]
        likeliest = slots.step(tokens).argmax(-1).tolist()
        new = []
        for draft, best in zip(drafts, likeliest, strict=True):
            right = next((n for n, token in enumerate(draft) if token != best[n]), len(draft))
            new.append(best[: right + 1])
        # The last of them is not in the cache yet, but the last one of before is.
        kept = list(map(len, new))
        slots.keep(kept)
        self.worth.saw(list(map(len, drafts)), kept)
        return new

    def _next(self, most: int) -> list[int]:
        """The next prompts, all of the length of the first, without padding."""
        tokens = len(self.prompts[self.waiting[0]])
        most = min(most, max(1, _READ_TOKENS // tokens))
        count = 1
        while count < min(most, len(self.waiting)) and len(self.prompts[self.waiting[count]]) == tokens:
            count += 1
        group, self.waiting = self.waiting[:count], self.waiting[count:]
        return group

    def _widen(self, slots: Slots, rows: Sequence[_Row]) -> None:
        """More rows and fewer columns, once the long prompts are answered."""
        if not self.waiting or slots.live == slots.rows:
            return
        longest = max(self._longest(), *(self.totals[row.prompt] for row in rows), 1)
        wanted = self._rows(longest, len(rows))
        if longest <= _NARROWER * slots.longest and wanted > slots.rows:
            slots.resize(wanted, longest)

    def _longest(self) -> int:
        return max((self.totals[i] for i in self.waiting), default=0)

    def _rows(self, longest: int, live: int = 0) -> int:
        return min(len(self.waiting) + live, self.room.rows(longest))


def _add(slots: Slots, rows: list[_Row], numbers: range, tokens: Sequence[Sequence[int]]) -> dict[int, Answer]:
    """Adds tokens to each of the answers in rows `numbers`, up to its last one; those that are finished leave, and are
    returned."""
    over = [row for row, new in zip(numbers, tokens, strict=True) if any(rows[row].add(token) for token in new)]
    finished = {rows[row].prompt: rows[row].answer for row in over}
    # From the last row on, so that the row that takes a number keeps it.
    for row in reversed(over):
        slots.leave(row)
        rows[row] = rows[-1]
        rows.pop()
    return finished
