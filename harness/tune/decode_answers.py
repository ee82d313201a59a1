"""Answers of an unfinished evaluation, on disk: whoever is killed in decoding loses the answers under way alone."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import torch
from msgspec import Meta

from harness.errors import first_line

Prompts = Sequence[Sequence[int]]  # token ids of each
_FORMAT = 1  # of the file
_MOST_BYTES = 1 << 28  # of a file; a larger one is none of ours


@dataclass(frozen=True)
class _Header:
    format: int
    key: str


@dataclass(frozen=True)
class _Answered:
    """Texts by the number of their question, and the seconds of decoding until then."""

    texts: dict[Annotated[int, Meta(ge=0)], Annotated[str, Meta(max_length=1 << 16)]]
    seconds: Annotated[float, Meta(ge=0, le=1e9)]


class KeptAnswers:
    """The texts of one evaluation after the other; the file holds those of the one under way.

    A file that is of another evaluation, or broken, is begun anew; of a line that was cut off those before it count.
    If the disk cannot hold it, `note` gets one message. `fresh` ignores what an older process kept.
    """

    def __init__(self, path: Path, note: Callable[[str], None] = lambda text: None, fresh: bool = False):
        self.path, self.note, self.fresh = path, note, fresh
        self.failed = False

    def answer(
        self,
        adapter: Mapping[str, torch.Tensor],
        prompts: Prompts,
        max_new_tokens: Sequence[int],
        decode: Callable[[Prompts, Sequence[int], Callable[[dict[int, str]], None]], object],
        on_answers: Callable[[int, int], None] = lambda done, total: None,
    ) -> tuple[list[str], float]:
        """The texts of all `prompts` and the seconds that they took, earlier processes' too.

        `decode` gets the prompts without an answer, their limits, and what to call with new texts by their index.
        `on_answers` receives (prompts answered, prompts in all).
        """
        key, count = _key(adapter, prompts, max_new_tokens), len(prompts)
        lines = [] if self.fresh else self._lines(key, count)
        self.fresh = False
        texts = {number: text for line in lines for number, text in line.texts.items()}
        before_s = lines[-1].seconds if lines else 0.0
        if texts:
            self.note(f"going on after {len(texts)} answers of {count}")
        # Written anew, so that nothing is appended to half a line.
        self._write("w", _Header(_FORMAT, key), *lines)
        left = [i for i in range(count) if i not in texts]
        start = time.perf_counter()

        def keep(new: dict[int, str]) -> None:
            own = {left[i]: text for i, text in new.items()}
            texts.update(own)
            self._write("a", _Answered(own, before_s + time.perf_counter() - start))
            on_answers(len(texts), count)

        if left:
            decode([prompts[i] for i in left], [max_new_tokens[i] for i in left], keep)
        return [texts[i] for i in range(count)], before_s + time.perf_counter() - start

    def discard(self) -> None:
        """Removes the file: the evaluation is over."""
        with suppress(OSError):
            self.path.unlink()

    def _lines(self, key: str, questions: int) -> list[_Answered]:
        out: list[_Answered] = []
        try:
            if self.path.stat().st_size > _MOST_BYTES:
                return []
            header, *rest = self.path.read_bytes().split(b"\n")
            if msgspec.json.decode(header, type=_Header) != _Header(_FORMAT, key):
                return []
        except (OSError, msgspec.MsgspecError):
            return []
        with suppress(msgspec.MsgspecError):  # the last line may be half a one
            for line in filter(None, rest):
                answered = msgspec.json.decode(line, type=_Answered)
                if max(answered.texts, default=0) >= questions:
                    break
                out.append(answered)
        return out

    def _write(self, mode: str, *lines: _Header | _Answered) -> None:
        if self.failed:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open(mode + "b") as file:
                file.write(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
        except OSError as problem:
            self.failed = True
            self.note(f"no answers can be kept in {self.path.parent} ({first_line(problem)}); if stopped, all are lost")


def _key(adapter: Mapping[str, torch.Tensor], prompts: Prompts, max_new_tokens: Sequence[int]) -> str:
    """What answers depend on besides the arm: the adapter's values to the bit, and the questions."""
    sha = hashlib.sha256(json.dumps([list(map(list, prompts)), list(max_new_tokens)]).encode())
    for name, value in sorted(adapter.items()):
        sha.update(name.encode())
        sha.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()
