"""Several answers to a question: all above a probability, depth first, or drawn at a temperature. Grids only.

One cache for all questions under way, a row per question. A step back takes the last tokens out of a question's row;
nothing before them is computed again. Tokens that a draft guesses are read with the one before them.
"""

import zlib
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch

from harness.train.special_tokens import end_ids
from harness.tune.decode import answering, cache_size_of, free_bytes
from harness.tune.decode_batches import Room, TokenLimit, ways_of
from harness.tune.decode_slots import Slots
from harness.tune.decode_steps import ONE, Steps, Way
from harness.tune.drafts import Draft, Worth
from harness.tune.grid_tokens import GridTokens
from harness.tune.search import DepthFirst, Drawn, Move

SEPARATOR: Final = "\n\n"  # of the candidates in a text; no encoding has an empty line

Search = DepthFirst | Drawn


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """`method` is "dfs" or "sample". `threshold` is the least probability of an answer by dfs; a sample is drawn at
    `temperature` by `seed` and the question's tokens, so that no batch changes it.
    """

    method: str
    encoding: str
    threshold: float = 0.1
    temperature: float = 1.0
    seed: int = 0

    def search(self, tokens: GridTokens, prompt: Sequence[int], limit: int) -> Search:
        if self.method == "dfs":
            return DepthFirst(tokens, limit, self.threshold)
        return Drawn(tokens, limit, self.temperature, self.seed + zlib.crc32(array("q", prompt).tobytes()))


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Who follows the decoding: `on_texts` receives texts by the index of their prompts, as soon as they are finished;
    asked before every token, `stop` ends it once it is true, and what was found until then counts."""

    on_texts: Callable[[dict[int, str]], None] = lambda texts: None
    stop: Callable[[], bool] = lambda: False


ALONE: Final = Watch()


def candidates(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: Sequence[int],
    decoding: Decoding,
    *,
    limit: TokenLimit | None = None,
    watch: Watch = ALONE,
) -> list[str]:
    """The answers of `model`, a PeftModel, to each of `prompts`: grids as text, the most likely first, joined by
    SEPARATOR; "" where none ended in time.

    `limit` is as in harness.tune.decode.greedy, and so is what happens when memory runs out. Raises UserError for a
    tokenizer that does not write grids by themselves.
    """
    device, tokens = next(model.parameters()).device, grid_tokens(model, tokenizer, decoding.encoding)
    limit, free, cache = limit or TokenLimit(), free_bytes(device), cache_size_of(model)
    ways = ways_of(model.get_base_model().config, prompts, max_new_tokens)
    texts: dict[int, str] = {}

    def done(number: int, search: Search) -> None:
        # Two ways of splitting one grid into tokens are one candidate.
        found = sorted(search.found, key=lambda answer: -answer[0])
        texts[number] = SEPARATOR.join(dict.fromkeys(tokenizer.decode(list(ids)) for _, ids in found))
        watch.on_texts({number: texts[number]})

    def explore(pending: Sequence[int], room: Room, own_attention: Callable[[], Any] | None) -> None:
        # A length that changes a rotary embedding does so for all rows: other ways have caches of their own.
        for way in dict.fromkeys(ways[i] for i in pending):
            members = sorted((i for i in pending if ways[i] == way), key=lambda i: -len(prompts[i]))
            width = max(len(prompts[i]) + max_new_tokens[i] for i in members)
            count = min(len(members), room.rows(width))
            searches = {i: decoding.search(tokens, prompts[i], max_new_tokens[i]) for i in members}
            rows: Slots | Alone = Alone(model)
            if way.static:
                rows = Slots(model, count, width, own_attention=own_attention, gaps=way.gaps, grouped=way.grouped)
            _explore(rows, Worth(device.type) if way.static else None, searches, prompts, done, watch.stop)

    with answering(model, free) as own_attention:
        while (pending := [i for i in range(len(prompts)) if i not in texts]) and not watch.stop():
            room = Room(cache, free, device.type, limit.tokens)
            longest = max(len(prompts[i]) + max_new_tokens[i] for i in pending)
            if reason := limit.try_work(partial(explore, pending, room, own_attention)):
                limit.give_way(reason, min(len(pending), room.rows(longest)), longest)
    return [texts.get(i, "") for i in range(len(prompts))]


def grid_tokens(model: Any, tokenizer: Any, encoding: str) -> GridTokens:
    """The tokens that `model`, a PeftModel, may write in a grid. Raises UserError as GridTokens does."""
    vocab_size = model.get_input_embeddings().weight.shape[0]
    return GridTokens(tokenizer, encoding, end_ids(tokenizer, model.get_base_model()), vocab_size)


class Alone:
    """What Slots does, for models without a cache that is shown to be right: one row, computed anew every time."""

    rows = 1

    def __init__(self, model: Any):
        self.model, self.device = model, next(model.parameters()).device
        self.live = 0
        self.ids: list[int] = []

    def read(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        self.ids, self.live = list(prompts[0]), 1
        return self._logits()

    def step(self, tokens: Sequence[Sequence[int]]) -> torch.Tensor:
        self.ids += tokens[0]
        return self._logits()[:, None]

    def keep(self, counts: Sequence[int]) -> None:
        """One token is read at a time, and it stays."""

    def rewind(self, row: int, tokens: int) -> None:
        del self.ids[len(self.ids) - tokens :]

    def leave(self, row: int) -> None:
        self.live = 0

    def _logits(self) -> torch.Tensor:
        ids = torch.tensor([self.ids], device=self.device)
        return Steps(self.model, ids, torch.ones_like(ids), Way(cached=False, rows=ONE)).logits()


@dataclass
class _Row:
    """A live row: the number of its prompt, what is searched, how that may go on, and the token to be read next."""

    number: int
    search: Search
    draft: Draft
    token: int = 0

    def tokens(self, guessed: int) -> list[int]:
        """What is read next: the token, and at most so many guessed ones."""
        left = self.search.limit - len(self.search.path)
        return [self.token, *self.draft.next(min(guessed, left - 1))]

    def follow(self, tokens: Sequence[int], logits: torch.Tensor) -> tuple[int, Move | None]:
        """How many of `tokens` stay, which have been read with these `logits` [tokens or more, vocabulary], and the
        move after them."""
        kept = 0
        while True:
            move, kept = self.search.next(logits[kept]), kept + 1
            if move:
                self.draft.rewind(move.back)
                self.draft.add(move.token)
                self.token = move.token
            if not move or move.back or kept >= len(tokens) or move.token != tokens[kept]:
                return kept, move


def _explore(
    rows: Slots | Alone,
    worth: Worth | None,
    searches: Mapping[int, Search],
    prompts: Sequence[Sequence[int]],
    done: Callable[[int, Search], None],
    stop: Callable[[], bool],
) -> None:
    """Runs all `searches`, by the numbers of their prompts, which are in order of length, the longest first.

    `worth` says how many tokens are guessed, None that none are. Stopped, those that are under way are done with what
    they have.
    """
    waiting = list(searches)
    live: list[_Row] = []

    def advance(row: int, move: Move | None) -> None:
        """Makes the move of a row; without one it leaves, and the last one gets its number."""
        if move:
            rows.rewind(row, move.back)
            return
        rows.leave(row)
        over, live[row] = live[row], live[-1]
        live.pop()
        done(over.number, over.search)

    while waiting or live:
        # Free rows are filled, and a question may be over at once.
        while waiting and rows.live < rows.rows and not stop():
            number = waiting.pop(0)
            search = searches[number]
            live.append(_Row(number, search, Draft(prompts[number], search.limit)))
            advance(len(live) - 1, live[-1].follow([], rows.read([prompts[number]]))[1])
        if stop():
            for stopped in live:
                done(stopped.number, stopped.search)
            return
        if live:
            most = worth.most(len(live)) if worth else 0
            tokens = [row.tokens(most) for row in live]
            logits = rows.step(tokens)
            followed = [live[i].follow(tokens[i], logits[i]) for i in range(len(live))]
            kept = [count for count, _ in followed]
            rows.keep(kept)
            if worth:
                worth.saw([len(read) - 1 for read in tokens], kept)
            # From the last row on, so that the row that takes a number has had its turn.
            for row in reversed(range(len(live))):
                advance(row, followed[row][1])
