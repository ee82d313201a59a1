import pytest
from helpers.tasks import made_tasks

from harness.arc import arms, encode, score, sources
from harness.arc.examples import leave_one_out
from harness.errors import UserError
from harness.records.cell import Recipe
from harness.tune import decode

# --- arms


def test_arms_are_one_change_after_another():
    published = ["baseline", "n-1", "+ geometric", "+ color swap", "preserve color", "n-2"]
    assert list(arms.ARMS) == [*published, "on the fly"]
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


# --- predicting


def _solver(tokens, rule):
    """Answers by the rule instead of a model: reads the question's last input from the prompt's text."""
    to_text, to_grid = encode.ENCODINGS["rows"]

    def answer(prompts, max_new_tokens):
        texts = []
        for prompt in prompts:
            text = "".join(tokens.convert_ids_to_tokens(list(prompt.ids)))
            test_input = text.split("Input ")[-1].split(":\n", 1)[1].split("\nOutput")[0]
            texts.append(to_text(rule(text, to_grid(test_input))))
        return texts

    return answer


def test_predictions_come_back_from_their_views(tokenizer):
    """A solver that turns by half works in any view; all answers must then be the truth, taken back right."""
    tasks, solutions = made_tasks(4, rule=lambda g: tuple(r[::-1] for r in g[::-1]))
    solver = _solver(tokenizer, lambda text, grid: tuple(r[::-1] for r in grid[::-1]))
    outcome = decode.predict(tasks, tokenizer, solver, views=12, encoding="rows", context=2048)
    assert (outcome.asked, outcome.skipped) == (48, 0)
    for task in tasks:
        assert set(outcome.answers[task.id][0]) == {solutions[task.id][0]}
    assert all(s.solved for s in score.score(outcome.answers, solutions))


def test_what_does_not_fit_or_is_no_grid_is_counted_wrong(tokenizer):
    tasks, solutions = made_tasks(2)
    outcome = decode.predict(tasks, tokenizer, lambda prompts, max_new_tokens: ["x"] * len(prompts), 2, "rows", 2048)
    assert all(s.answered == s.attempts == 0 for s in score.score(outcome.answers, solutions))
    outcome = decode.predict(tasks, tokenizer, lambda prompts, max_new_tokens: [""] * len(prompts), 2, "rows", 64)
    assert (outcome.asked, outcome.skipped) == (0, 4)


def _loaded(weights_folder):
    import torch

    from harness.catalog import models as catalog
    from harness.catalog.precisions import find
    from harness.train import model as models

    spec = catalog.from_folder(weights_folder)
    recipe = Recipe(learning_rate=1e-2, sequences_per_step=4)
    loaded = models.load(spec, find("fp32"), "fp32", recipe, str(weights_folder), torch.device("cpu"))
    return loaded.model, models.load_tokenizer(str(weights_folder)), recipe


def test_batched_greedy_decoding_equals_one_by_one_without_a_cache(weights_folder):
    """Prompts of different lengths, left-padded in one batch: the tokens of plain argmax, step by step.

    The model is tuned first, so that it writes digits; the end is then the newline, after which nothing may be told.
    """
    import torch

    from harness.arc.prompt import build
    from harness.tune import finetune

    model, tokens, recipe = _loaded(weights_folder)
    tasks, _ = made_tasks(3)
    finetune.tune(model, tokens, tasks, arms.ARMS["n-1"], recipe, "fp32", 40, "rows", 1024)
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
    assert decode.greedy(model, tokens)(prompts, [12] * 3) == expected
    assert model.training


def test_tuning_lowers_the_loss_moves_the_adapter_alone_and_resets(weights_folder):
    import torch

    from harness.tune import finetune

    model, tokens, recipe = _loaded(weights_folder)
    adapter = finetune.Adapter(model)
    tasks, solutions = made_tasks(3)
    before = decode.losses(model, tokens, tasks, solutions, "rows", 1024)
    base = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    tuned = finetune.tune(model, tokens, tasks, arms.ARMS["n-1"], recipe, "fp32", 25, "rows", 1024)
    after = decode.losses(model, tokens, tasks, solutions, "rows", 1024)
    assert len(tuned.losses) == 25
    assert tuned.used == 100
    assert tuned.losses[-1] < tuned.losses[0] - 0.2
    assert sum(loss for loss, _ in after) < sum(loss for loss, _ in before)
    assert all(torch.equal(p, base[n]) for n, p in model.named_parameters() if n in base)
    adapter.reset()
    assert decode.losses(model, tokens, tasks, solutions, "rows", 1024) == before
    untouched = finetune.tune(model, tokens, tasks, arms.ARMS["baseline"], recipe, "fp32", 25, "rows", 1024)
    assert untouched.losses == []
    with pytest.raises(UserError, match="no training example fits 40 tokens"):
        finetune.tune(model, tokens, tasks, arms.ARMS["n-1"], recipe, "fp32", 1, "rows", 40)


def test_tuning_is_the_same_for_the_same_seed(weights_folder):
    from harness.tune import finetune

    losses = []
    for _ in range(2):
        model, tokens, recipe = _loaded(weights_folder)
        tasks, _ = made_tasks(3)
        losses.append(finetune.tune(model, tokens, tasks, arms.ARMS["n-2"], recipe, "fp32", 4, "rows", 1024).losses)
    assert losses[0] == losses[1]


def test_no_task_output_is_an_argument_of_tuning():
    import inspect

    from harness.tune.finetune import tune

    assert "solutions" not in inspect.signature(tune).parameters
    assert (
        sources.task_of("t", {"train": [{"input": [[1]], "output": [[2]]}], "test": [{"input": [[3]]}]}, "x")[1] is None
    )
