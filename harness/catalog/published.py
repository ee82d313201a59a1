"""Others' published accuracies of test-time fine-tuning; shown beside measured ones, never ranked."""

from dataclasses import dataclass

SOURCE = "ironbar/arc24, iteration 4, August 2024"


@dataclass(frozen=True)
class Published:
    """Shares of 400 ARC-AGI-1 evaluation tasks solved in 2 attempts, before and after test-time fine-tuning."""

    model: str
    before: float
    after: float


ACCURACIES = {  # by the name of the model of models.yaml with the same shapes
    "phi-3-mini": Published("Phi-3", 0.065, 0.168),
    "qwen2.5-1.5b": Published("Qwen2-1.5B", 0.071, 0.159),
    "qwen2.5-0.5b": Published("Qwen2-0.5B", 0.046, 0.124),
}
