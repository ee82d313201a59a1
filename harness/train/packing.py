"""How many tokens a step packs together, how many fit a device, and what gives way when its memory runs out."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from harness.catalog.activations import tokens_at_once
from harness.records.cell import ALL, MLP, NONE
from harness.train import recompute
from harness.train.step import RanOut, TrainingStep

_DESCRIBED = {NONE: "", MLP: ", checkpointing of the MLPs", ALL: ", checkpointing"}


@dataclass(frozen=True)
class PackSetting:
    tokens: int  # most tokens in one forward and backward, unless a single sequence is longer
    recompute: str = NONE  # a Recipe's `gradient_checkpointing`

    def __str__(self) -> str:
        return f"{self.tokens} tokens at once{_DESCRIBED[self.recompute]}"

    def smaller(self, longest: int) -> "PackSetting | None":
        """The next setting that needs less memory, given the tokens of the longest sequence; None after the last.

        Packs are halved until that sequence is alone in its own; then the MLPs are recomputed, then all layers.
        """
        if self.tokens > longest:
            return replace(self, tokens=max(longest, self.tokens // 2))
        more = {NONE: MLP, MLP: ALL}.get(self.recompute)
        return replace(self, recompute=more) if more else None


class Packing:
    """The setting that `model` is trained with. It gives way when memory runs out, and stays so.

    `note` receives a sentence per change; `notes` keeps them.
    """

    def __init__(self, model: torch.nn.Module, setting: PackSetting, note: Callable[[str], None] = lambda text: None):
        self.model, self.setting, self.note = model, setting, note
        self.notes: list[str] = []

    def shrink(self, longest: int, when: str) -> bool:
        """Takes the next smaller setting, and frees what the failed try held. False where there is none."""
        setting = self.setting.smaller(longest)
        if setting is None:
            return False
        if setting.recompute != self.setting.recompute:
            recompute.apply(self.model, setting.recompute)
        self.setting = setting
        self.notes.append(f"memory ran out {when}: going on with {setting}, which learns the same more slowly")
        self.note(self.notes[-1])
        free_memory()
        return True


def run_step(
    step: TrainingStep, sequences: Sequence[tuple[Sequence[int], int]], packing: Packing, when: str
) -> torch.Tensor:
    """The loss of the step on `sequences`; it is run again with less, however often memory runs out.

    Raises torch.OutOfMemoryError where nothing is left to give way.
    """
    while True:
        try:
            return step.run(sequences, packing.setting.tokens)
        except RanOut as problem:
            reason = str(problem)
        if not packing.shrink(max(len(ids) for ids, _ in sequences), when):
            raise torch.OutOfMemoryError(reason)


def free_memory() -> None:
    """Gives back what a failed try held: its graph, and the blocks that the allocator keeps."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def default_tokens_at_once(model: Any, free_bytes: Callable[[torch.device], int] | None = None) -> int:
    """Tokens of one forward and backward whose activations fit well: half a GiB of them, on a card half of its free
    memory if that is more. `free_bytes` is a seam for tests.
    """
    config, embedding = model.get_base_model().config.get_text_config(), model.get_input_embeddings().weight
    free = 0
    if free_bytes or embedding.device.type == "cuda":
        free = (free_bytes or _free_on_card)(embedding.device)
    return tokens_at_once(config.num_hidden_layers, config.hidden_size, embedding.element_size(), free)


def _free_on_card(device: torch.device) -> int:
    """Bytes that this process can still allocate: what nobody has, and what its allocator keeps unused."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
