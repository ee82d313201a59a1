"""What a notebook finds around it: every sentence, and what is done instead of what is missing."""

import json
import os

import pytest
from helpers.gguf_files import random_model, write
from helpers.records import TINY
from helpers.tasks import made_tasks

from harness import kaggle, network
from harness.errors import UserError
from harness.hardware import driver
from harness.kaggle import inputs as scanned
from harness.records.stored import to_stored
from harness.solve import submission


@pytest.fixture(autouse=True)
def no_internet_and_no_card(monkeypatch):
    monkeypatch.setattr(network, "reachable", lambda url: False)
    monkeypatch.setattr(driver, "look", lambda: None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.delenv("KAGGLE_IS_COMPETITION_RERUN", raising=False)


@pytest.fixture
def inputs(tmp_path):
    (tmp_path / "input").mkdir()
    return tmp_path / "input"


def challenges(path, count=2):
    """Writes a file of challenges as Kaggle has them."""
    tasks = made_tasks(count)[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({task.id: raw(task) for task in tasks}))
    return path


def raw(task):
    pairs = [to_stored(pair) for pair in task.demonstrations]
    return {"train": pairs, "test": [{"input": grid} for grid in task.test_inputs]}


def look(inputs, tmp_path, **options):
    return kaggle.look(inputs=inputs, working=tmp_path, **options)


def notes(here, word):
    return [note for note in here.notes if word in note]


# ---- Tasks


def test_the_test_set_of_a_competition_is_taken(inputs, tmp_path):
    wanted = challenges(inputs / "arc-prize-2025/arc-agi_test_challenges.json", 3)
    for part in ("evaluation", "training"):
        challenges(inputs / f"arc-prize-2025/arc-agi_{part}_challenges.json")
    here = look(inputs, tmp_path)
    assert here.tasks == wanted
    assert notes(here, "Tasks:") == [f"Tasks: the 3 of {wanted}."]


def test_of_two_competitions_the_newest_year_is_taken_and_it_is_said_why(inputs, tmp_path):
    older = challenges(inputs / "competitions/arc-prize-2024/arc-agi_test_challenges.json")
    newer = challenges(inputs / "competitions/arc-prize-2025/arc-agi_test_challenges.json")
    here = look(inputs, tmp_path)
    assert here.tasks == newer
    (note,) = notes(here, "Tasks:")
    assert "of 2025, the newest year" in note and str(older) in note


def test_of_two_folders_of_one_year_the_first_is_taken(inputs, tmp_path):
    first = challenges(inputs / "a/challenges.json")
    challenges(inputs / "b/challenges.json")
    here = look(inputs, tmp_path)
    assert here.tasks == first and "the first by name" in notes(here, "Tasks:")[0]


def test_without_challenges_small_tasks_stand_in(inputs, tmp_path):
    here = look(inputs, tmp_path)
    (note,) = notes(here, "stand in")
    assert note.startswith(f"{inputs} has no challenges; 6 small tasks")
    written = json.loads(here.tasks.read_text())
    assert len(written) == 6
    assert json.loads((tmp_path / "stand-in_solutions.json").read_text()).keys() == written.keys()
    # Elsewhere it is said that this is not Kaggle.
    (note,) = notes(look(tmp_path / "nothing", tmp_path), "stand in")
    assert "this is not Kaggle" in note


def test_a_format_that_is_not_known_is_passed_over_for_the_next_file(inputs, tmp_path):
    strange = inputs / "arc-prize-2027/arc-agi_test_challenges.json"
    strange.parent.mkdir()
    strange.write_text('{"games": [1, 2]}')
    wanted = challenges(inputs / "arc-prize-2024/arc-agi_test_challenges.json")
    here = look(inputs, tmp_path)
    assert here.tasks == wanted
    (note,) = notes(here, "Passed over")
    assert str(strange) in note and "\n" not in note


def test_the_folders_of_2020_are_read(inputs, tmp_path):
    for part in ("test", "training"):
        folder = inputs / "abstraction-and-reasoning-challenge" / part
        folder.mkdir(parents=True)
        for task in made_tasks(2)[0]:
            (folder / f"{task.id}.json").write_text(json.dumps(raw(task)))
    here = look(inputs, tmp_path)
    assert here.tasks == inputs / "abstraction-and-reasoning-challenge/test"
    assert "format of 2020" in notes(here, "2 tasks")[0]


def test_named_tasks_win_and_wrong_ones_are_passed_over(inputs, tmp_path):
    found = challenges(inputs / "arc-prize-2025/arc-agi_test_challenges.json")
    named = challenges(tmp_path / "mine.json", 1)
    assert look(inputs, tmp_path, tasks=str(named)).tasks == named
    here = look(inputs, tmp_path, tasks=str(tmp_path / "none.json"))
    assert here.tasks == found and "none.json" in notes(here, "Passed over")[0]


def test_a_competition_goes_before_any_data_set(inputs, tmp_path):
    """By the sample of a submission beside it, or by its name; a later year in another's name says nothing."""
    backup = challenges(inputs / "backup-of-2026/arc-agi_test_challenges.json")
    wanted = challenges(inputs / "arc-prize-2025/arc-agi_test_challenges.json", 3)
    here = look(inputs, tmp_path)
    assert here.tasks == wanted
    assert notes(here, "Tasks:") == [f"Tasks: the 3 of {wanted}: of the competition; {backup} could be taken by TASKS."]
    # Next year's may be called otherwise.
    other = challenges(inputs / "abc/arc-agi_test_challenges.json")
    (other.parent / "sample_submission.json").write_text("{}")
    here = look(inputs, tmp_path)
    assert here.tasks == other and "beside sample_submission.json" in notes(here, "Tasks:")[0]
    (wanted.parent / "sample_submission.json").write_text("{}")
    assert look(inputs, tmp_path).tasks == wanted


@pytest.mark.parametrize("place", ["arc-prize-2025", "competitions/arc-prize-2025"])
def test_a_data_set_of_many_folders_hides_no_other(inputs, tmp_path, monkeypatch, place):
    monkeypatch.setattr(scanned, "MOST_FOLDERS", 20)
    huge = inputs / "a-huge-one"
    for number in range(30):
        (huge / f"{number:02}" / "below").mkdir(parents=True)
    wanted = challenges(inputs / place / "arc-agi_test_challenges.json", 3)
    near = challenges(huge / "00/challenges.json")
    here = look(inputs, tmp_path)
    assert here.tasks == wanted and str(near) not in notes(here, "Tasks:")[0]
    (note,) = notes(here, "more than")
    assert note.startswith(f"{huge} has more than 20 folders")
    assert near in scanned.scan(inputs).files  # what lies near its top is found all the same


def test_inputs_of_one_owner_are_searched_each_by_itself(inputs, monkeypatch):
    monkeypatch.setattr(scanned, "MOST_FOLDERS", 3)
    for number in range(9):
        (inputs / f"datasets/me/many/{number}").mkdir(parents=True)
    deep = challenges(inputs / "datasets/me/tasks/v1/challenges.json")
    found = scanned.scan(inputs)
    assert found.files == (deep,) and found.cut == (inputs / "datasets/me/many",)
    assert scanned.scan(inputs / "nothing").files == ()


def test_while_kaggle_scores_nothing_stands_in(inputs, tmp_path, monkeypatch):
    monkeypatch.setenv("KAGGLE_IS_COMPETITION_RERUN", "1")
    with pytest.raises(UserError, match=f"{inputs} has no challenges that can be read: nothing is answered; attach"):
        look(inputs, tmp_path)
    assert not list(tmp_path.glob("stand-in*"))
    monkeypatch.setattr(scanned, "MOST_FOLDERS", 1)
    (inputs / "big/below").mkdir(parents=True)
    with pytest.raises(UserError, match=f"{inputs}/big only in part"):
        look(inputs, tmp_path)
    named = challenges(tmp_path / "mine.json", 1)
    assert look(inputs, tmp_path, tasks=str(named)).tasks == named


# ---- Models


def test_weights_that_are_attached_are_taken(inputs, tmp_path):
    challenges(inputs / "challenges.json")
    folder = inputs / "qwen2.5/transformers/0.5b-instruct/1"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(TINY | {"max_position_embeddings": 256}))
    (folder / "model.safetensors").touch()
    here = look(inputs, tmp_path)
    assert here.models == (str(folder),)


def test_without_weights_the_small_model_stands_in(inputs, tmp_path):
    challenges(inputs / "challenges.json")
    (inputs / "no-weights").mkdir()
    (inputs / "no-weights/config.json").write_text("{}")
    here = look(inputs, tmp_path)
    assert here.models == ("arc-tiny",) and notes(here, "arc-tiny stands in")


def test_a_gguf_file_is_a_model_and_weights_that_are_passed_over_are_named(inputs, tmp_path):
    challenges(inputs / "challenges.json")
    (inputs / "pickled").mkdir()
    (inputs / "pickled/config.json").write_text(json.dumps(TINY))
    (inputs / "pickled/pytorch_model.bin").touch()
    (inputs / "no-model.bin").touch()
    here = look(inputs, tmp_path)
    assert here.models == ("arc-tiny",) and notes(here, "No weights that can be read")
    (note,) = notes(here, "Passed over")
    assert str(inputs / "pickled") in note and "pytorch_model.bin, and pickled weights are never loaded" in note
    path = write(inputs / "small.gguf", random_model(max_position_embeddings=512))
    (inputs / "half.gguf").write_bytes(path.read_bytes()[:100])
    here = look(inputs, tmp_path)
    assert here.models == (str(path),) and "half.gguf" in notes(here, "Left out")[0] and notes(here, "pickled")


def test_models_that_are_unknown_are_left_out(inputs, tmp_path):
    challenges(inputs / "challenges.json")
    here = look(inputs, tmp_path, models=["qwen-0.5b", "qwen-0.5x"])
    assert here.models == ("qwen-0.5b",) and "qwen-0.5x" in notes(here, "Left out")[0]
    here = look(inputs, tmp_path, models="qwen-0.5x")
    assert here.models == ("arc-tiny",) and notes(here, "None of these models")


# ---- The machine


def test_a_session_without_card_or_internet_says_so(inputs, tmp_path):
    challenges(inputs / "challenges.json")
    here = look(inputs, tmp_path)
    assert notes(here, "No accelerator") and notes(here, "No internet") and os.environ["HF_HUB_OFFLINE"] == "1"


def test_cards_are_named(inputs, tmp_path, monkeypatch):
    challenges(inputs / "challenges.json")
    monkeypatch.setattr(driver, "look", lambda: driver.Driver("550.1", ("Tesla T4", "Tesla T4")))
    monkeypatch.setattr(network, "reachable", lambda url: True)
    here = look(inputs, tmp_path)
    assert here.notes[0] == "Cards: Tesla T4, Tesla T4 (driver 550.1)." and not notes(here, "No internet")


def test_a_folder_that_cannot_be_written_to_is_replaced(inputs, tmp_path, monkeypatch):
    challenges(inputs / "challenges.json")
    read_only = tmp_path / "read-only"
    read_only.mkdir(mode=0o555)
    monkeypatch.chdir(read_only)
    if os.access(read_only, os.W_OK):  # root may write everywhere but to the kernel's folders
        pytest.importorskip("fcntl")
        monkeypatch.chdir(read_only := type(tmp_path)("/proc"))
    here = kaggle.look(inputs=inputs, working=read_only)
    assert here.folder not in (read_only, inputs) and here.submission.parent.is_dir()
    assert f"{read_only} cannot be written to" in notes(here, "go to")[0]


def test_kaggles_scoring_is_noticed(inputs, tmp_path, monkeypatch):
    challenges(inputs / "challenges.json")
    assert not look(inputs, tmp_path).scored
    monkeypatch.setenv("KAGGLE_IS_COMPETITION_RERUN", "1")
    assert look(inputs, tmp_path).scored


# ---- The submission


def test_a_submission_is_checked(inputs, tmp_path):
    challenges(inputs / "arc-agi_test_challenges.json", 2)
    here = look(inputs, tmp_path)
    assert "There is no valid" in kaggle.check(here) and kaggle.answered(here) == 0
    tasks = made_tasks(2)[0]
    submission.write(here.submission, tasks, {tasks[0].id: (("1",),)})
    assert kaggle.check(here).endswith("is valid: 2 tasks, 1 of them with an answer.") and kaggle.answered(here) == 1
    here.submission.write_text("{}")
    assert "is missing, and 1 more" in kaggle.check(here) and kaggle.answered(here) == 0
