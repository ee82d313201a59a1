"""How many sequences go through the model at once where nobody chose, by hand."""

from dataclasses import dataclass, replace

import pytest
from helpers.records import TINY

from harness.catalog import accelerators
from harness.catalog.accelerators import Accelerator
from harness.predict.roofline import Memory, Trace
from harness.predict.variants import default_micro_batch, halved, micro_batch_within
from harness.records.cell import REFERENCE, Cell, ModelSpec, Recipe

GIB = 2**30
# 40 values of 2 bytes per token, layer and unit of width: 80 x 32 x 4096 bytes are 10 MiB per token.
SPEC = ModelSpec("wide", TINY | {"num_hidden_layers": 32, "hidden_size": 4096}, 32768)


CARD = replace(accelerators.find("a100"), memory_bytes=50 * GIB, context_bytes=0)
RECIPE, TRACE = Recipe(), Trace((), Memory(weights=9 * GIB, optimizer=GIB), 1, 1, 1, 256)


@dataclass(frozen=True)
class Alone:
    """What of a prediction of one sequence at a time counts: its weights and states take 10 GiB of a card of 50."""

    spec: ModelSpec = SPEC
    recipe: Recipe = RECIPE
    context: int = 256
    compute_dtype: str = "bf16"
    accelerator: Accelerator = CARD
    trace: Trace = TRACE


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({}, 8),  # half of 40 GiB free are 2048 tokens
        ({"context": 257}, 4),
        ({"context": 2048}, 1),
        ({"context": 32768}, 1),
        ({"context": 1}, 16),  # all of a step
        ({"context": 1, "recipe": Recipe(sequences_per_step=12)}, 4),
        ({"context": 1, "recipe": Recipe(data_parallel=2)}, 8),
        ({"compute_dtype": "fp32"}, 4),
        ({"recipe": Recipe(micro_batch=2)}, 2),  # chosen
        ({"recipe": Recipe(implementation=REFERENCE)}, 1),  # as its libraries run it
        ({"recipe": Recipe(layer_split=2)}, 1),
        ({"accelerator": accelerators.cpu("a CPU", 50 * GIB, {})}, 1),
        ({"spec": replace(SPEC, architecture={"model_type": "unheard-of"})}, 1),  # its width is not known
        ({"spec": replace(SPEC, architecture={"n_layer": 32, "n_embd": 4096})}, 8),
        ({"spec": replace(SPEC, architecture={"text_config": SPEC.architecture})}, 8),
    ],
)
def test_a_card_takes_as_many_sequences_at_once_as_a_fine_tune_would_pack(changes, size):
    assert default_micro_batch(replace(Alone(), **changes)) == size


def test_however_little_is_free_half_a_gib_of_activations_is_taken():
    """512 MiB are 51 tokens."""
    full = Alone(trace=replace(TRACE, memory=Memory(weights=50 * GIB)))
    assert [default_micro_batch(replace(full, context=n)) for n in (12, 13, 26)] == [4, 2, 1]


def test_halves_down_to_one_sequence_or_an_odd_number():
    def sizes(recipe):
        cell = Cell(SPEC, "bf16", "bf16", 256, recipe, "random", "cuda:0", "a card")
        return [variant.recipe.micro_batch for variant in halved(cell)]

    assert sizes(Recipe(micro_batch=8)) == [8, 4, 2, 1]
    assert sizes(Recipe(micro_batch=6, sequences_per_step=12)) == [6, 3]
    assert sizes(Recipe()) == [1]


def test_a_share_that_no_power_of_two_divides_is_taken_one_by_one():
    assert micro_batch_within(10**6, 1, Recipe(sequences_per_step=15)) == 1
