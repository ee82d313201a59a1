import random

import pytest

from harness.arc import dataset, encode, examples, prompt, sources
from harness.arc.task import Pair, Task

PAIRS = (Pair(((1, 2),), ((2, 1),)), Pair(((3,),), ((3,),)))


def _text(tokenizer, ids):
    return "".join(tokenizer.convert_ids_to_tokens(list(ids)))


def test_a_question_by_hand():
    assert prompt.question(PAIRS[:1], ((4, 5),), "rows") == "Input 1:\n12\nOutput 1:\n21\n\nInput 2:\n45\n"


def test_without_a_chat_template(tokenizer):
    whole = prompt.build(tokenizer, PAIRS[:1], ((4, 5),), ((5, 4),), "rows")
    assert _text(tokenizer, whole.ids) == "<s>Input 1:\n12\nOutput 1:\n21\n\nInput 2:\n45\nOutput 2:\n54</s>"
    assert _text(tokenizer, whole.ids[-whole.answer_tokens :]) == "54</s>"
    question = prompt.build(tokenizer, PAIRS[:1], ((4, 5),), None, "rows")
    assert question.answer_tokens == 0
    assert question.ids == whole.ids[: -whole.answer_tokens]


def test_through_the_chat_template(tokenizer, monkeypatch):
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    template += "{% if add_generation_prompt %}[assistant]{% endif %}"
    monkeypatch.setattr(tokenizer, "chat_template", template)
    text = _text(tokenizer, prompt.build(tokenizer, PAIRS, ((4,),), ((4,),), "shaped").ids)
    assert text.startswith(f"[system]{prompt.SYSTEM}[user]Input 1:\n1x2\n12")
    assert text.endswith("Input 3:\n1x1\n4\n[assistant]1x1\n4</s>")


@pytest.mark.parametrize("encoding", encode.ENCODINGS)
def test_the_answer_decodes_to_the_output(tokenizer, encoding):
    rng = random.Random(1)
    output = tuple(tuple(rng.randrange(10) for _ in range(7)) for _ in range(5))
    built = prompt.build(tokenizer, PAIRS, ((4,),), output, encoding)
    answer = _text(tokenizer, built.ids[-built.answer_tokens : -1])
    assert encode.ENCODINGS[encoding][1](answer) == output


def test_what_does_not_fit_is_dropped_or_loses_demonstrations(tokenizer):
    whole = prompt.build(tokenizer, PAIRS, ((4,),), ((4,),), "rows")
    size = len(whole.ids)

    def fit(context, shorten, max_new_tokens=0):
        prompts = prompt.PromptFormat(tokenizer=tokenizer, encoding="rows", context=context, shorten=shorten)
        return prompts.fit(PAIRS, ((4,),), ((4,),), max_new_tokens)

    assert fit(size, shorten=False) == whole
    assert fit(size - 1, shorten=False) is None
    assert fit(size, shorten=False, max_new_tokens=1) is None
    assert fit(size - 1, shorten=True).shown == 1
    assert fit(10, shorten=True) is None


@pytest.mark.parametrize(
    ("name", "count", "mean", "shares"),
    [("arc1-evaluation", 1363, 1764, (0.27, 0.74, 0.94)), ("arc1-training", 1302, 1237, (0.50, 0.89, 0.98))],
)
def test_the_estimate_is_near_the_published_lengths(name, count, mean, shares):
    """The published leave-one-out sequences: their number, mean, longest, and the shares under 1024 to 4096 tokens."""
    measured = dataset.distributions(sources.load(name)[0])[1]
    assert measured.count == count
    assert measured.mean == pytest.approx(mean, rel=0.01)
    assert measured.quantile(1.0) == measured.knots[-1][0] == pytest.approx(7836, rel=0.01)
    assert [measured.coverage(c) for c in (1024, 2048, 4096)] == [pytest.approx(share, abs=0.02) for share in shares]


def test_sets_without_examples_have_questions_only():
    task = Task("p", PAIRS[:1], (((1,),),))
    assert examples.leave_one_out(task) == []
    (only,) = dataset.distributions([task])
    assert (only.name, only.coverage(10_000)) == ("test questions", 1.0)


def test_the_verb_counts_by_a_tokenizer_or_says_that_it_estimates(tokenizer, tmp_path, capsys):
    from harness.cli import app

    def printed(*words):
        with pytest.raises(SystemExit) as end:
            app.main(["coverage", *words])
        return end.value.code, capsys.readouterr()

    code, shown = printed("--contexts", "1024 4096")
    assert not code
    assert max(map(len, shown.out.splitlines())) <= 80
    assert "leave-one-out 1363" in " ".join(shown.out.split())
    assert "estimated" in shown.out
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "tasks").mkdir()
    task = (
        '{"train": [{"input": [[1]], "output": [[2]]}, {"input": [[3]], "output": [[4]]}], "test": [{"input": [[5]]}]}'
    )
    (tmp_path / "tasks" / "t.json").write_text(task)
    code, shown = printed(str(tmp_path / "tasks"), "--contexts", "64", "--tokenizer", str(tmp_path / "tokenizer"))
    assert not code
    (task,), _ = sources.load(str(tmp_path / "tasks"))
    size = len(prompt.build(tokenizer, task.demonstrations, ((5,),), None, "rows").ids)
    assert f"test questions 1 {size}" in " ".join(shown.out.split())
    assert "counted by the tokenizer" in " ".join(shown.out.split())
    for words, fault in (
        (["--tokenizer", str(tmp_path)], "no tokenizer at"),
        (["--contexts", ""], "0 contexts"),
        (["nowhere"], "unknown set"),
    ):
        code, shown = printed(*words)
        assert code == 2
        assert fault in shown.err
