"""Augmenting, encoding and scoring must never keep the device waiting: make benchmarks ARGS=bench/bench_arc.py.

Targets, on one core: over 5,000 tasks a second scored, each of 16 views and one test input.
"""

import random

import pytest

from harness.arc import augment, encode, examples, score, sources


@pytest.fixture(scope="module")
def evaluation():
    return sources.load("arc1-evaluation")


def test_score_tasks(benchmark, evaluation):
    """A round scores 1000 tasks of 10 x 10 cells: 16 views, of which half agree."""
    rng = random.Random(0)
    truth = tuple(tuple(rng.randrange(10) for _ in range(10)) for _ in range(10))
    others = [tuple(tuple(rng.randrange(10) for _ in range(10)) for _ in range(10)) for _ in range(8)]
    predicted = {f"t{i}": [[truth, *others, *[truth] * 7]] for i in range(1000)}
    truths = {name: (truth,) for name in predicted}
    benchmark.extra_info["tasks"] = len(truths)
    assert benchmark(score.score, predicted, truths)[0].solved


@pytest.mark.parametrize("name", encode.ENCODINGS)
def test_view_and_encode_examples(benchmark, evaluation, name):
    """A round augments and encodes every leave-one-out example of the evaluation set, 1363 of them."""
    to_text, _ = encode.ENCODINGS[name]
    made = [e for task in evaluation[0] for e in examples.leave_one_out(task)]
    rng = random.Random(0)

    def build():
        texts = []
        for example in made:
            viewed = example.in_view(augment.draw(rng, len(example.demonstrations)))
            grids = [grid for pair in viewed.demonstrations for grid in (pair.input, pair.output)]
            texts.append("\n".join(map(to_text, [*grids, viewed.test_input, viewed.output])))
        return texts

    benchmark.extra_info["examples"] = len(made)
    assert len(benchmark.pedantic(build, rounds=3)) == len(made)
