"""Which prompts are decoded together: in which way, and how many at once."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from harness.errors import first_line
from harness.predict.answering import CacheSize
from harness.train.device_errors import ran_out
from harness.train.packing import free_memory
from harness.tune.decode_check import way_of
from harness.tune.decode_steps import ANY, EQUAL, ONE, Way


@dataclass(frozen=True)
class Room:
    """How many rows a batch may have: by free memory, and by `tokens` where these are given."""

    cache: CacheSize
    free_bytes: int
    kind: str
    tokens: int | None = None

    def rows(self, tokens: int) -> int:
        """Rows of so many tokens each, at least one."""
        fitting = self.cache.rows(tokens, self.free_bytes, self.kind)
        return min(fitting, max(1, self.tokens // tokens)) if self.tokens else fitting


class TokenLimit:
    """The most tokens, answers included, that are held at once: `tokens`, or None for what the free memory allows.

    It gives way when memory runs out, and stays so. `note` receives a sentence the first time; `notes` keeps it.
    """

    def __init__(self, tokens: int | None = None, note: Callable[[str], None] = lambda text: None):
        self.tokens, self.note = tokens, note
        self.notes: list[str] = []

    def give_way(self, reason: str, rows: int, longest: int) -> None:
        """As `shrink`; raises torch.OutOfMemoryError with `reason` where one row is too much."""
        if not self.shrink(rows, longest):
            raise torch.OutOfMemoryError(reason)

    @staticmethod
    def try_work(work: Callable[[], None]) -> str:
        """Does `work`: "", or why memory ran out, which is free again. What `work` did by then counts."""
        try:
            work()
            return ""
        except Exception as problem:
            if not ran_out(problem):
                raise
            reason = first_line(problem)  # not the exception, which holds the cache
        free_memory()
        return reason or "memory ran out"

    def shrink(self, rows: int, longest: int) -> bool:
        """Half of the `rows` of `longest` tokens that were tried; False where that was one."""
        if rows <= 1:
            return False
        self.tokens = longest * (rows // 2)
        if not self.notes:
            self.notes.append(
                f"memory ran out with {rows} answers at once: going on with {rows // 2}, or fewer, "
                "which gives the same answers more slowly"
            )
            self.note(self.notes[-1])
        return True


def ways_of(config: Any, prompts: Sequence[Sequence[int]], max_new_tokens: Sequence[int]) -> list[Way]:
    """The way of each prompt: that of the architecture, unless positions mean something else beyond some length."""
    way = way_of(config)
    text = config.get_text_config()
    ropes = getattr(text, "rope_parameters", None) or {}
    ropes = [rope for rope in (ropes, *ropes.values()) if isinstance(rope, dict) and "rope_type" in rope]
    changing = [rope for rope in ropes if rope["rope_type"] in ("longrope", "dynamic")]
    ways = [way] * len(prompts)
    for rope in changing:
        longest = getattr(text, "original_max_position_embeddings", None) or text.max_position_embeddings
        limit = rope.get("original_max_position_embeddings") or longest
        for i, (prompt, new_tokens) in enumerate(zip(prompts, max_new_tokens, strict=True)):
            # Keys in the cache have the old positions. With a longrope all of a longer prompt have the new ones.
            crosses = len(prompt) <= limit if rope["rope_type"] == "longrope" else True
            if len(prompt) + new_tokens > limit and crosses:
                ways[i] = Way(cached=False, rows=EQUAL if way.rows != ONE else ONE)
            elif len(prompt) > limit:
                ways[i] = replace(way, beyond=True)
    return ways


def batches(
    prompts: Sequence[Sequence[int]],
    max_new_tokens: Sequence[int],
    room: Room,
    ways: Sequence[Way],
    members: Collection[int],
) -> list[list[int]]:
    """The indices `members` of prompts in batches, longest first, so that a lack of memory shows at once."""
    order = sorted(members, key=lambda i: -len(prompts[i]) - max_new_tokens[i])
    # Prompts that may not share a batch are apart: of another way, or of another length where that matters.
    groups: dict[tuple, list[int]] = {}
    for i in order:
        alone = {ANY: 0, EQUAL: len(prompts[i]), ONE: i}[ways[i].rows]
        groups.setdefault((ways[i], alone), []).append(i)
    out: list[list[int]] = []
    for group in groups.values():
        while group:
            # A batch is as wide as its first row, the longest.
            count = room.rows(len(prompts[group[0]]) + max_new_tokens[group[0]])
            out.append(group[:count])
            group = group[count:]
    return out
