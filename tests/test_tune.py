import json
import random

import pytest
from conftest import TINY
from test_prompt import tokenizer  # noqa: F401

from harness import cli
from harness.arc import encode, score, tasks
from harness.arc.tasks import Pair, Puzzle
from harness.errors import UserError
from harness.forecast.proportions import mcnemar
from harness.records import Recipe
from harness.tune import arms, experiment, predict
from harness.tune.sets import leave_one_out


def _puzzles(count, rule=lambda grid: grid[::-1], pairs=3):
    """Puzzles of one rule (upside down), with their solutions."""
    rng, found, solutions = random.Random(0), [], {}
    for n in range(count):
        grids = [tuple(tuple(rng.randrange(10) for _ in range(3)) for _ in range(2)) for _ in range(pairs + 1)]
        found.append(Puzzle(f"t{n}", tuple(Pair(g, rule(g)) for g in grids[:-1]), (grids[-1],)))
        solutions[f"t{n}"] = (rule(grids[-1]),)
    return found, solutions


# --- arms


def test_arms_are_one_change_after_another():
    assert list(arms.ARMS) == ["baseline", "n-1", "+ geometric", "+ color swap", "preserve color", "n-2"]
    assert [a.name for a in arms.choose("baseline, n-1")] == ["baseline", "n-1"]
    with pytest.raises(UserError, match="did you mean n-2 or n-1"):
        arms.choose("n-3")


def test_streams_are_the_same_for_a_seed_and_vary_as_the_arm_says():
    puzzles, _ = _puzzles(3)

    def first(name, seed=0, count=60):
        stream = arms.ARMS[name].stream(puzzles, seed)
        return [next(stream) for _ in range(count)]

    assert first("+ color swap") == first("+ color swap")
    assert first("+ color swap") != first("+ color swap", seed=1)
    plain = {(e.input, e.output) for p in puzzles for e in leave_one_out(p)}
    assert {(e.input, e.output) for e in first("n-1")} == plain
    assert not {(e.input, e.output) for e in first("+ geometric")} <= plain
    shapes = {(len(e.input), len(e.input[0])) for e in first("+ geometric")}
    assert shapes == {(2, 3), (3, 2)}
    kept = [e for e in first("preserve color", count=400) if (e.input, e.output) in plain]
    swapped = [e for e in first("+ color swap", count=400) if (e.input, e.output) in plain]
    assert len(kept) > 3 * max(1, len(swapped))
    assert {len(e.pairs) for e in first("n-2", count=100)} == {1, 2}


# --- predicting


def _solver(tokens, rule):
    """Answers by the rule instead of a model: reads the question's last input from the prompt's text."""
    there, back = encode.ENCODINGS["rows"]

    def answer(prompts, rooms):
        texts = []
        for prompt in prompts:
            text = "".join(tokens.convert_ids_to_tokens(list(prompt.ids)))
            asked = text.split("Input ")[-1].split(":\n", 1)[1].split("\nOutput")[0]
            texts.append(there(rule(text, back(asked))))
        return texts

    return answer


def test_predictions_come_back_from_their_views(tokenizer):  # noqa: F811
    """A solver that turns by half works in any view; all answers must then be the truth, taken back right."""
    puzzles, solutions = _puzzles(4, rule=lambda g: tuple(r[::-1] for r in g[::-1]))
    solver = _solver(tokenizer, lambda text, grid: tuple(r[::-1] for r in grid[::-1]))
    found = predict.predict(puzzles, tokenizer, solver, views=12, encoding="rows", context=2048)
    assert (found.asked, found.unasked) == (48, 0)
    for puzzle in puzzles:
        assert set(found.answers[puzzle.id][0]) == {solutions[puzzle.id][0]}
    assert all(s.solved for s in score.score(found.answers, solutions))


def test_what_does_not_fit_or_is_no_grid_is_counted_wrong(tokenizer):  # noqa: F811
    puzzles, solutions = _puzzles(2)
    found = predict.predict(puzzles, tokenizer, lambda prompts, rooms: ["x"] * len(prompts), 2, "rows", 2048)
    assert all(s.answered == s.attempts == 0 for s in score.score(found.answers, solutions))
    found = predict.predict(puzzles, tokenizer, lambda prompts, rooms: [""] * len(prompts), 2, "rows", 64)
    assert (found.asked, found.unasked) == (0, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer):  # noqa: F811
    """A Llama of two layers with the tokenizer of characters, as a user's folder of weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    said = {**TINY, "vocab_size": len(tokenizer), "max_position_embeddings": 1024}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(said.pop("model_type"), **said))
    path = tmp_path_factory.mktemp("weights") / "tiny"
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def _loaded(folder):
    import torch

    from harness.catalog import models as catalog
    from harness.catalog.precisions import find
    from harness.train import model as models

    spec = catalog.from_folder(folder)
    recipe = Recipe(learning_rate=1e-2, sequences_per_step=4)
    loaded = models.load(spec, find("fp32"), "fp32", recipe, str(folder), torch.device("cpu"))
    return loaded.model, models.load_tokenizer(str(folder)), recipe


def test_batched_greedy_decoding_equals_one_by_one_without_a_cache(folder):
    """Prompts of different lengths, left-padded in one batch: the tokens of plain argmax, step by step."""
    import torch

    from harness.arc.prompt import Prompt, build

    model, tokens, _ = _loaded(folder)
    puzzles, _ = _puzzles(3)
    prompts = [build(tokens, p.pairs[: 1 + i], p.test_inputs[0], None, "rows") for i, p in enumerate(puzzles)]
    answerer = predict.greedy(model, tokens)
    end = tokens.eos_token_id
    expected = []
    model.eval()
    for prompt in prompts:
        ids = list(prompt.ids)
        with torch.no_grad():
            for _ in range(12):
                ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        said = ids[len(prompt.ids) :]
        expected.append(tokens.decode(said[: said.index(end)]) if end in said else "")
    assert answerer(prompts, [12] * 3) == expected
    # An end in the text is what counts; make one of the three end by asking with an end already likely.
    assert isinstance(prompts[0], Prompt)
    assert model.training


def test_tuning_lowers_the_loss_moves_the_adapter_alone_and_resets(folder):
    import torch

    from harness.tune import finetune

    model, tokens, recipe = _loaded(folder)
    adapter = finetune.Adapter(model)
    puzzles, solutions = _puzzles(3)
    before = predict.losses(model, tokens, puzzles, solutions, "rows", 1024)
    base = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    found = finetune.tune(model, tokens, puzzles, arms.ARMS["n-1"], recipe, "fp32", 25, "rows", 1024)
    after = predict.losses(model, tokens, puzzles, solutions, "rows", 1024)
    assert len(found.losses) == 25
    assert found.used == 100
    assert found.losses[-1] < found.losses[0] - 0.2
    assert sum(loss for loss, _ in after) < sum(loss for loss, _ in before)
    assert all(torch.equal(p, base[n]) for n, p in model.named_parameters() if n in base)
    adapter.reset()
    assert predict.losses(model, tokens, puzzles, solutions, "rows", 1024) == before
    untouched = finetune.tune(model, tokens, puzzles, arms.ARMS["baseline"], recipe, "fp32", 25, "rows", 1024)
    assert untouched.losses == []
    with pytest.raises(UserError, match="no training example fits 40 tokens"):
        finetune.tune(model, tokens, puzzles, arms.ARMS["n-1"], recipe, "fp32", 1, "rows", 40)


def test_tuning_is_the_same_for_the_same_seed(folder):
    from harness.tune import finetune

    losses = []
    for _ in range(2):
        model, tokens, recipe = _loaded(folder)
        puzzles, _ = _puzzles(3)
        losses.append(finetune.tune(model, tokens, puzzles, arms.ARMS["n-2"], recipe, "fp32", 4, "rows", 1024).losses)
    assert losses[0] == losses[1]


# --- the verb


@pytest.fixture
def set_of_tasks(tmp_path):
    puzzles, solutions = _puzzles(4)
    (tmp_path / "tasks").mkdir()
    for p in puzzles:
        said = {
            "train": [{"input": pair.input, "output": pair.output} for pair in p.pairs],
            "test": [{"input": p.test_inputs[0], "output": solutions[p.id][0]}],
        }
        (tmp_path / "tasks" / f"{p.id}.json").write_text(json.dumps(said))
    return tmp_path / "tasks"


def _ttft(folder, set_of_tasks, *words):
    common = ["--set", str(set_of_tasks), "--device", "cpu", "--results", str(set_of_tasks.parent / "results")]
    with pytest.raises(SystemExit) as end:
        cli.main(
            [
                "ttft",
                str(folder),
                *common,
                "--context",
                "1024",
                *(() if "--steps" in words else ("--steps", "2")),
                *words,
            ]
        )
    return end.value.code


def test_all_arms_give_the_table_and_are_not_run_twice(folder, set_of_tasks, capsys):
    assert not _ttft(folder, set_of_tasks, "--tasks", "3")
    said = capsys.readouterr().out
    table = said[said.index("arm ") :]
    for name in arms.ARMS:
        assert f"\n{name} " in table
    assert max(map(len, table.splitlines())) <= 80
    assert "Best arm: " in said
    path = set_of_tasks.parent / "results" / "accuracy.jsonl"
    rows = [experiment.from_json(json.loads(line)) for line in path.read_text().splitlines()]
    assert [row.steps for row in rows] == [0, 2, 2, 2, 2, 2]
    assert len({row.trial.tasks for row in rows}) == 1
    assert [json.loads(json.dumps(experiment.to_json(row))) for row in rows] == [
        json.loads(line) for line in path.read_text().splitlines()
    ]
    counts = rows[0].answer_losses
    assert rows[0].token_loss == pytest.approx(sum(n * c for n, c in counts) / sum(c for _, c in counts))
    before = path.read_bytes()
    assert not _ttft(folder, set_of_tasks, "--tasks", "3", "--arms", "baseline, n-2")
    assert capsys.readouterr().out.count("from the record") == 2
    assert path.read_bytes() == before


def test_a_curve_is_evaluated_on_the_way_and_projected(folder, set_of_tasks, capsys):
    words = ["--tasks", "3", "--arms", "baseline, n-1", "--steps", "8", "--learning-rate", "1e-3"]
    assert not _ttft(folder, set_of_tasks, *words, "--project-to", "32")
    said = " ".join(capsys.readouterr().out.split())
    assert "n-1: measured 0.0 % at 8 steps; projected to 32 steps: 0 to" in said
    assert "x4.0 beyond the last checkpoint" in said
    path = set_of_tasks.parent / "results" / "accuracy.jsonl"
    base, tuned = (experiment.from_json(json.loads(line)) for line in path.read_text().splitlines())
    assert [c.steps for c in tuned.checkpoints] == [1, 2, 4, 8]
    assert tuned.checkpoints[-1].loss == pytest.approx(tuned.token_loss)
    assert tuned.checkpoints[-1].loss < tuned.checkpoints[0].loss <= base.token_loss + 1e-6
    assert not _ttft(folder, set_of_tasks, *words, "--project-to", "80")
    assert "no projection to 80: x10.0 beyond" in " ".join(capsys.readouterr().out.split())


def test_halving():
    assert experiment.halving(125) == [3, 7, 15, 31, 62, 125]
    assert experiment.halving(2) == [1, 2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--arms", "none"], "unknown arm"),
        (["--encoding", "words"], "unknown encoding"),
        (["--tasks", "0"], "--tasks must be 1 or more"),
        (["--views", "0"], "--views must be 1 or more"),
        (["--context", "9999"], "beyond the window"),
        (["--learning-rate", "-1"], "--learning-rate must be above 0"),
        (["--weights", "random"], "no weights: accuracy not measured"),
        (["--precision", "int5"], "unknown precision"),
    ],
)
def test_bad_input_is_one_line(folder, set_of_tasks, capsys, words, said):
    assert _ttft(folder, set_of_tasks, *words) == 2
    err = capsys.readouterr().err
    assert said in err
    assert len(err.strip().splitlines()) == 1


def test_a_model_of_the_list_without_weights_says_how_to_give_them(set_of_tasks, capsys, monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "none"))
    assert _ttft("qwen-0.5b", set_of_tasks) == 2
    assert "no weights: accuracy not measured; give them with --weights PATH" in capsys.readouterr().err


def test_tasks_without_solutions_cannot_be_scored(folder, set_of_tasks, capsys):
    for path in set_of_tasks.glob("*.json"):
        said = json.loads(path.read_text())
        del said["test"][0]["output"]
        path.write_text(json.dumps(said))
    assert _ttft(folder, set_of_tasks) == 2
    assert "no task has its solution" in capsys.readouterr().err


def test_no_task_output_is_an_argument_of_tuning():
    import inspect

    from harness.tune.finetune import tune

    assert "solutions" not in inspect.signature(tune).parameters
    assert mcnemar([True], [True]) == 1.0
    assert (
        tasks.puzzle_of("t", {"train": [{"input": [[1]], "output": [[2]]}], "test": [{"input": [[3]]}]}, "x")[1] is None
    )
