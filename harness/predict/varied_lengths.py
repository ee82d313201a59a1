"""What a card shows as reserved where sequences have many lengths and torch's allocator has its default settings.

Our own processes let blocks grow (expandable_segments), and keep little. Other trainers' processes keep a block of
logits for many of the lengths that they have met, and give them back where memory runs short: so this is no matter of
whether a step fits.
"""

import math
from dataclasses import dataclass

from harness.catalog.accelerators import CPU
from harness.predict.allocator import held_logits
from harness.predict.prediction import Prediction

# Of the logits that are held at most, what is reserved for them, and the standard deviation of its logarithm: replayed
# by the allocator's own rules (bench.replay_allocator). With one length it is 1.2, and as they are known less well 1.5.
LOGITS_SPREAD, LOG_SIGMA = 3.9, 0.31


@dataclass(frozen=True)
class Reserved:
    """Bytes of one card, its context included, and the factor of their 95 % interval without the context."""

    size: float
    factor: float


def reserved(predicted: Prediction) -> Reserved:
    """What is reserved of a card at the end of a run whose sequences have lengths up to the context."""
    card, logits = predicted.accelerator, predicted.trace.memory.logits
    kept = 0.0 if card.kind == CPU else max(0.0, LOGITS_SPREAD * logits - held_logits(logits, card.kind))
    context = 0 if card.kind == CPU else card.context_bytes
    size = min(predicted.peak_bytes + kept, max(card.memory_bytes, predicted.peak_bytes))
    # The rest is as uncertain as a peak, and the logits by how many lengths came in which order.
    share = min(1.0, LOGITS_SPREAD * logits / max(1.0, size - context)) if kept else 0.0
    return Reserved(size, math.exp(1.96 * math.hypot(predicted.memory_log_sigma, share * LOG_SIGMA)))
