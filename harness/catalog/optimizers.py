"""What an optimiser holds and moves per trained value, as plain data. The program's own step uses the fused AdamW; the
others exist so that others' runs can be predicted as they were made."""

from dataclasses import dataclass

from harness.errors import unknown

FUSED, FOREACH, EIGHT_BIT, MASTERS = "adamw", "adamw-foreach", "adamw-8bit", "adamw-masters"


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """`states` are bytes of both moments, None where they have the value's own dtype. `masters` are bytes of an fp32
    copy. `temporaries` are values that the update makes beside them, and `passes` how often it reads or writes all
    values."""

    states: int | None = None
    masters: int = 0
    temporaries: int = 0
    passes: float = 7


OPTIMIZERS = {
    # Reads weight, gradient and two states, and writes all but the gradient, in one kernel.
    FUSED: Optimizer(),
    # torch's default without fused=True: one operation after the other over all tensors (torch.optim.adam,
    # _multi_tensor_adam). Two more tensors per value is what published rows of rank 256 hold beyond their states.
    FOREACH: Optimizer(temporaries=2, passes=19),
    # bitsandbytes' AdamW8bit: two moments of a byte each.
    EIGHT_BIT: Optimizer(states=2, passes=5.5),
    # Training in 16 bits with fp32 copies of the weights and fp32 moments, as mixed precision has it (Micikevicius et
    # al. 2018; DeepSpeed, Apex O2).
    MASTERS: Optimizer(states=8, masters=4, temporaries=1, passes=19),
}


def find(name: str) -> Optimizer:
    """Raises UserError for a name that is not in OPTIMIZERS."""
    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS)
    return OPTIMIZERS[name]
