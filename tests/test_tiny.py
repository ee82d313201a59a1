import json
import random

import pytest

from harness.arc import tasks
from harness.arc.augment import View
from harness.arc.prompt import build
from harness.tiny import families

ALL = {**families.TRAINED, **families.HELD_OUT, "chained": families.chained}


@pytest.mark.parametrize("name", ALL)
def test_every_family_makes_tasks_that_its_rule_explains(name):
    """Fifty tasks each: proper grids of at most 30 a side, at least one pair changed, the same for the same seed."""
    for seed in range(50):
        puzzle, output = families.task(ALL[name], random.Random(seed), 6)
        again, _ = families.task(ALL[name], random.Random(seed), 6)
        assert puzzle == again
        assert len(puzzle.pairs) == 4
        for grid in (*(g for p in puzzle.pairs for g in (p.input, p.output)), *puzzle.test_inputs, output):
            assert tasks.grid_of([list(row) for row in grid], name) == grid


def test_held_out_families_are_not_trained():
    assert not set(families.HELD_OUT) & set(families.TRAINED)


@pytest.mark.parametrize(
    ("name", "rule_of"),
    [("mirror_beside", lambda r: r + r[::-1]), ("sort_rows", lambda r: tuple(sorted(r)))],
)
def test_rules_by_another_way(name, rule_of):
    puzzle, output = families.task(ALL[name], random.Random(3), 6)
    assert output == tuple(map(rule_of, puzzle.test_inputs[0]))


def test_cropping_by_hand():
    assert families.bounding_box(((0, 0, 0), (0, 1, 0), (0, 0, 2), (0, 0, 0))) == ((1, 0), (0, 2))


def test_the_tokenizer_spends_one_token_a_cell():
    from harness.tiny.model import SYMBOLS, tokenizer

    tokens = tokenizer()
    puzzle = tasks.Puzzle("p", (tasks.Pair(((1, 2), (3, 4)), ((5,),)),), (((6, 7),),))
    prompt = build(tokens, puzzle.pairs, puzzle.test_inputs[0], ((8,),), "rows")
    assert "".join(SYMBOLS[i] for i in prompt.ids) == "<s>I12\n34O5I67O8</s>"
    assert prompt.answer == 2


def test_targets_are_the_outputs_but_the_first():
    from harness.tiny.model import SYMBOLS
    from harness.tiny.pretrain import targets

    text = ["<s>", *"I12O21I34O43", "</s>"]
    said = targets([SYMBOLS.index(s) for s in text])
    # After the second O: 4, 3 and the end; the first output and every input are not learned.
    assert [SYMBOLS[t] if t >= 0 else "." for t in said] == [*"..........43", "</s>", "."][: len(text)]


def test_pretraining_goes_on_where_it_was(tmp_path):
    """Four steps at once, or two and two: the same weights to the bit; then loaded as a hub model is."""
    import torch

    from harness.catalog import models as catalog
    from harness.catalog import precisions
    from harness.records import Recipe
    from harness.tiny import pretrain
    from harness.train import model as models

    how = {"largest": 3, "budget": 512, "peak": 1e-3, "seed": 0, "save_every": 2}
    pretrain.train(tmp_path / "a", 4, **how)
    kept = pretrain.rate
    try:
        pretrain.rate = lambda step, steps, peak: kept(step, 4, peak)
        grow = pretrain.largest_at
        pretrain.largest_at = lambda step, steps, largest: grow(step, 4, largest)
        pretrain.train(tmp_path / "b", 2, **how)
        pretrain.train(tmp_path / "b", 4, **how)
    finally:
        pretrain.rate, pretrain.largest_at = kept, grow
    a, b = (torch.load(tmp_path / side / "checkpoint.pt", weights_only=True)["model"] for side in "ab")
    assert all(torch.equal(a[name], b[name]) for name in a)
    log = (tmp_path / "b" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [2, 4]
    spec = catalog.from_folder(tmp_path / "a")
    loaded = models.load(spec, precisions.find("fp32"), "fp32", Recipe(), str(tmp_path / "a"), torch.device("cpu"))
    assert 1_000_000 < loaded.params < 3_000_000


def test_a_view_of_a_made_task_is_one_too():
    puzzle, output = families.task(families.TRAINED["roll_rows"], random.Random(0), 5)
    view = View("transpose")
    assert view.invert(view.of(puzzle).test_inputs[0]) == puzzle.test_inputs[0]
    assert view.invert(view.apply(output)) == output
