"""Answers of an evaluation that is stopped: what is answered is not decoded again, nor taken from another."""

from dataclasses import replace

import pytest
import torch
from helpers.tasks import made_tasks
from helpers.tuning import UNTIMED, Stopped, spec_of

from harness.arc.arms import ARMS
from harness.tune import decode
from harness.tune.checkpoint import Checkpointer, answers_path, discard, path_of
from harness.tune.decode_answers import KeptAnswers
from harness.tune.runner import ArmRunner

ADAPTER = {"a": torch.tensor([1.0, 2.0])}
PROMPTS, LIMITS = [[1], [2], [3], [4]], [5, 5, 5, 5]


def answered(kept, adapter=ADAPTER, prompts=PROMPTS, stop=None):
    """The texts, and the prompts that were decoded for them; stopped after so many."""
    seen = []

    def decoding(prompts, limits, on_texts):
        assert len(limits) == len(prompts)
        for i, prompt in enumerate(prompts):
            if len(seen) == stop:
                raise Stopped
            seen.append(prompt)
            on_texts({i: f"text {prompt[0]}"})

    try:
        texts, seconds = kept.answer(adapter, prompts, LIMITS[: len(prompts)], decoding)
    except Stopped:
        return None, seen
    assert seconds > 0
    return texts, seen


def test_only_what_has_no_answer_is_decoded(tmp_path):
    path, notes = tmp_path / "folder" / "answers", []
    assert answered(KeptAnswers(path), stop=3) == (None, PROMPTS[:3])
    texts, seen = answered(KeptAnswers(path, notes.append), stop=0)
    assert texts is None and seen == []
    assert answered(KeptAnswers(path, notes.append)) == ([f"text {n}" for n in (1, 2, 3, 4)], PROMPTS[3:])
    assert notes == ["going on after 3 answers of 4"] * 2
    assert answered(KeptAnswers(path))[1] == []  # all are there
    assert answered(KeptAnswers(path, fresh=True))[1] == PROMPTS


@pytest.mark.parametrize("other", ["adapter", "prompts"])
def test_answers_of_another_adapter_or_other_questions_are_not_taken(tmp_path, other):
    path = tmp_path / "answers"
    answered(KeptAnswers(path))
    changed = {"adapter": {"a": torch.tensor([1.0, 2.0000002])}} if other == "adapter" else {"prompts": PROMPTS[:3]}
    texts, seen = answered(KeptAnswers(path), **changed)
    assert len(texts) == len(seen) == (4 if other == "adapter" else 3)


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (lambda whole: whole[:-9], 1),  # killed while writing the last line
        (lambda whole: whole.replace(b'"text 2"', b"2"), 3),
        (lambda whole: whole.replace(b'"1":', b'"7":'), 3),  # no such question
        (lambda whole: whole.replace(b'"1":', b'"-1":'), 3),
        (lambda whole: b"{}\n" + whole, 4),
        (lambda whole: b"", 4),
        (lambda whole: b"\xff\x00", 4),
        (lambda whole: whole.replace(b'"format":1', b'"format":2'), 4),
    ],
)
def test_a_broken_file_counts_as_far_as_it_is_whole(tmp_path, change, left):
    path = tmp_path / "answers"
    answered(KeptAnswers(path))
    path.write_bytes(change(path.read_bytes()))
    texts, seen = answered(KeptAnswers(path))
    assert texts == [f"text {n}" for n in (1, 2, 3, 4)] and len(seen) == left
    assert answered(KeptAnswers(path))[1] == []  # and is whole again


def test_where_nothing_can_be_kept_it_is_said_once(tmp_path):
    (tmp_path / "file").write_text("")
    notes = []
    texts, _ = answered(KeptAnswers(tmp_path / "file" / "answers", notes.append))
    assert texts == [f"text {n}" for n in (1, 2, 3, 4)]
    assert len(notes) == 1 and "no answers can be kept" in notes[0]


def test_an_arm_killed_while_it_answers_goes_on_with_its_answers(tmp_path, arc_folder, monkeypatch):
    """One undisturbed, one killed after two answers of its last evaluation: nothing is done twice."""
    tasks, solutions = made_tasks(3)
    spec = spec_of(arc_folder, tasks, curve=False)
    truths, greedy, counts = {name: solutions[name] for name in spec.tasks}, decode.greedy, []

    def run(name, stop_after=None):
        steps, notes = [], []

        def watched(model, tokenizer, prompts, limits, on_texts, **more):
            counts.append(len(prompts))
            done = []

            def heard(texts):
                on_texts(texts)
                done.extend(texts)
                if stop_after and len(done) >= stop_after:
                    raise Stopped

            return greedy(model, tokenizer, prompts, limits, on_texts=heard, **more)

        monkeypatch.setattr(decode, "greedy", watched)
        checkpointer = Checkpointer(path_of(tmp_path, name), notes.append, every_s=1e9)
        try:
            runner = ArmRunner(spec, tasks, truths)
            outcome = runner.run(ARMS["n-1"], checkpointer, lambda arm, step, total, loss: steps.append(step))
        except Stopped:
            outcome = None
        return outcome, steps, notes

    whole, steps, _ = run("whole")
    assert len(steps) == spec.steps and counts == [6]
    assert run("killed", stop_after=2)[0] is None
    assert answers_path(path_of(tmp_path, "killed")).exists()
    rest, steps, notes = run("killed")
    assert steps == [] and counts[-1] <= 4
    assert notes == ["going on from a checkpoint", f"going on after {6 - counts[-1]} answers of 6"]
    assert replace(rest, **UNTIMED) == replace(whole, **UNTIMED)
    assert not answers_path(path_of(tmp_path, "killed")).exists()
    # What a process that was killed for good leaves is removed with the checkpoint.
    run("other", stop_after=2)
    assert len(list((tmp_path / "checkpoints").glob("other*"))) == 2
    discard(tmp_path, "other")
    assert not list((tmp_path / "checkpoints").glob("other*"))
