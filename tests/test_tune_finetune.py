import pytest
from helpers.tasks import made_tasks
from helpers.tuning import fine_tuned

from harness.arc import arms, sources
from harness.arc.dataset import solved_sequences
from harness.arc.examples import leave_one_out
from harness.arc.prompt import PromptFormat
from harness.errors import UserError
from harness.records.cell import Recipe
from harness.tune import decode

# --- arms


def test_arms_are_one_change_after_another():
    published = ["baseline", "n-1", "+ geometric", "+ color swap", "preserve color", "n-2"]
    further = ["+ scale", "+ tile", "+ mirror", "+ pad", "+ combine", "+ swap sides", "mixture"]
    assert list(arms.ARMS) == [*published, "on the fly", *further]
    assert [a.name for a in arms.choose("all")] == arms.TABLE == published
    assert [a.name for a in arms.choose("on the fly")] == ["on the fly"]
    assert [a.name for a in arms.choose("baseline, n-1")] == ["baseline", "n-1"]
    with pytest.raises(UserError, match="did you mean n-2 or n-1"):
        arms.choose("n-3")


def test_streams_are_the_same_for_a_seed_and_vary_as_the_arm_says():
    tasks, _ = made_tasks(3)

    def first(name, seed=0, count=60):
        stream = arms.ARMS[name].stream(tasks, seed)
        return [next(stream) for _ in range(count)]

    assert first("+ color swap") == first("+ color swap")
    assert first("+ color swap") != first("+ color swap", seed=1)
    plain = {(e.test_input, e.output) for p in tasks for e in leave_one_out(p)}
    assert {(e.test_input, e.output) for e in first("n-1")} == plain
    assert not {(e.test_input, e.output) for e in first("+ geometric")} <= plain
    shapes = {(len(e.test_input), len(e.test_input[0])) for e in first("+ geometric")}
    assert shapes == {(2, 3), (3, 2)}
    kept = [e for e in first("preserve color", count=400) if (e.test_input, e.output) in plain]
    swapped = [e for e in first("+ color swap", count=400) if (e.test_input, e.output) in plain]
    assert len(kept) > 3 * max(1, len(swapped))
    assert {len(e.demonstrations) for e in first("n-2", count=100)} == {1, 2}


def _loaded(weights_folder):
    import torch

    from harness.catalog import model_folder
    from harness.catalog.precisions import find
    from harness.train import model as models

    spec = model_folder.from_folder(weights_folder)
    recipe = Recipe(learning_rate=1e-2, sequences_per_step=4)
    loaded = models.load(spec, find("fp32"), "fp32", recipe, str(weights_folder), torch.device("cpu"))
    return loaded.model, models.load_tokenizer(str(weights_folder)), recipe


def test_batched_greedy_decoding_equals_one_by_one_without_a_cache(weights_folder):
    """Prompts of different lengths, left-padded in one batch: the tokens of plain argmax, step by step.

    The model is tuned first, so that it writes digits; the end is then the newline, after which nothing may be told.
    """
    import torch

    from harness.arc.prompt import build

    model, tokens, recipe = _loaded(weights_folder)
    tasks, _ = made_tasks(3)
    fine_tuned(model, tokens, tasks, recipe, 40)
    prompts = [build(tokens, p.demonstrations[: 1 + i], p.test_inputs[0], None, "rows") for i, p in enumerate(tasks)]
    plain = []
    model.eval()
    for prompt in prompts:
        ids = list(prompt.ids)
        with torch.no_grad():
            for _ in range(12):
                ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        plain.append(ids[len(prompt.ids) :])
    model.train()
    end = next(t for ids in plain for t in ids[1:] if t != ids[0])
    tokens.eos_token = tokens.convert_ids_to_tokens(end)
    expected = [tokens.decode(ids[: ids.index(end)]) if end in ids else "" for ids in plain]
    assert any(expected)
    assert decode.greedy(model, tokens, [prompt.ids for prompt in prompts], [12] * 3) == expected
    assert model.training


def test_tuning_lowers_the_loss_moves_the_adapter_alone_and_resets(weights_folder):
    import torch

    from harness.tune import finetune

    model, tokens, recipe = _loaded(weights_folder)
    adapter = finetune.Adapter(model)
    tasks, solutions = made_tasks(3)
    prompts = PromptFormat(tokenizer=tokens, encoding="rows", context=1024)
    sequences = solved_sequences(tasks, solutions, prompts)
    before = decode.losses(model, sequences)
    base = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    trained, drawn = fine_tuned(model, tokens, tasks, recipe, 25)
    after = decode.losses(model, sequences)
    assert len(trained.losses) == 25
    assert (drawn.used, drawn.too_long) == (100, 0)
    assert trained.losses[-1] < trained.losses[0] - 0.2
    assert sum(loss for loss, _ in after) < sum(loss for loss, _ in before)
    assert all(torch.equal(p, base[n]) for n, p in model.named_parameters() if n in base)
    adapter.reset()
    assert decode.losses(model, sequences) == before
    with pytest.raises(UserError, match="no training example fits 40 tokens"):
        fine_tuned(model, tokens, tasks, recipe, 1, context=40)


def test_tuning_is_the_same_for_the_same_seed(weights_folder):

    losses = []
    for _ in range(2):
        model, tokens, recipe = _loaded(weights_folder)
        tasks, _ = made_tasks(3)
        losses.append(fine_tuned(model, tokens, tasks, recipe, 4, arm="n-2")[0].losses)
    assert losses[0] == losses[1]


def test_no_task_output_is_an_argument_of_tuning():
    import inspect

    from harness.tune.finetune import tune

    assert "solutions" not in inspect.signature(tune).parameters
    assert (
        sources.task_of("t", {"train": [{"input": [[1]], "output": [[2]]}], "test": [{"input": [[3]]}]}, "x")[1] is None
    )
