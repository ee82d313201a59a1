"""What others published of test-time fine-tuning; shown beside measured figures, never ranked with them."""

from dataclasses import dataclass

SOURCE = "ironbar/arc24, iteration 4, August 2024"
ARCHITECTS = "the ARChitects, ARC Prize 2024"
MARC = "MARC, Akyürek et al. 2024, arXiv 2411.07279"


@dataclass(frozen=True)
class Published:
    """Shares of `tasks` ARC-AGI-1 evaluation tasks solved in 2 attempts, before and after test-time fine-tuning."""

    model: str
    before: float
    after: float
    tasks: int = 400
    source: str = SOURCE


@dataclass(frozen=True)
class PublishedArm:
    """An arm of arc24's experiments with Phi-3: nats per token on the answers, share solved, or what is said of it.

    `loss` and `accuracy` are None where none was reported.
    """

    arm: str  # the name of the arm here
    loss: float | None = None
    accuracy: float | None = None
    words: str = ""


ACCURACIES = {  # by the name of the model of models.yaml with the same shapes
    "phi-3-mini": Published("Phi-3", 0.065, 0.168),
    "qwen2.5-1.5b": Published("Qwen2-1.5B", 0.071, 0.159),
    "qwen2.5-0.5b": Published("Qwen2-0.5B", 0.046, 0.124),
}
RUNS = (*ACCURACIES.values(), Published("not named here", 0.21, 0.355, 100, ARCHITECTS))
ARMS_MODEL = "Phi-3"
ARMS = (
    PublishedArm("baseline", 0.1445, 0.065),
    PublishedArm("n-1", 0.1398, 0.072),
    PublishedArm("+ geometric", 0.1107),
    PublishedArm("+ color swap", 0.099, 0.168),
    PublishedArm("preserve color", words="no gain"),
    PublishedArm("n-2", words="no gain"),
)
# Of each source the conditions that its figures hold under.
CONDITIONS = {
    SOURCE: "400 ARC-AGI-1 evaluation tasks, best of 2 attempts; one adapter for all tasks, every leave-one-out, steps "
    "of 16 sequences (runs of 150 to 5000), learning rate 5e-5, LoRA of rank 32, alpha 64 on q, k, v, o; loss on "
    "answers; greedy, 2 views",
    ARCHITECTS: "100 ARC-AGI-1 evaluation tasks, top 2; one adapter per half of the test set, 8 symmetries x 4 with "
    "all 10 colours and pair order, about 400 steps of 4, learning rate 1e-4, LoRA of rank 64, alpha 16 on all linear "
    "layers and embeddings; loss on all outputs; with their search and scoring the same model reached 63.5 %",
    MARC: "one adapter per task, leave-one-out topped up with leave-two-out to 250 examples, steps of 2, learning rate "
    "5e-5, LoRA of rank 128, alpha 16 on q, v and the MLP; loss on all outputs but the first; greedy over views, vote; "
    "no figure of its accuracy is kept here",
}
