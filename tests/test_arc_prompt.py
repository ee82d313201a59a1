import copy
import random

import pytest

from harness.arc import dataset, encode, examples, prompt, sources
from harness.arc.task import Pair, Task
from harness.errors import UserError

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


TURNS = "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}<end>{% endfor %}<assistant>"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + TURNS
DROPPED = "{% for m in messages if m.role != 'system' %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
PARTS = "{% for m in messages %}<{{ m.role }}>{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}<assistant>"


@pytest.mark.parametrize(
    ("template", "begins"),
    [
        (TURNS, f"<system>{prompt.SYSTEM}<end><user>Input 1:"),
        (NO_SYSTEM, f"<user>{prompt.SYSTEM}\n\nInput 1:"),
        (DROPPED, f"<user>{prompt.SYSTEM}\n\nInput 1:"),
        (PARTS, f"<system>{prompt.SYSTEM}<user>Input 1:"),
    ],
    ids=["with a system", "refused", "dropped", "parts"],
)
def test_a_template_gets_the_system_text_where_it_takes_it(tokenizer, monkeypatch, template, begins):
    monkeypatch.setattr(tokenizer, "chat_template", template)
    with_answer, without = (prompt.build(tokenizer, PAIRS, ((4,),), output, "rows") for output in (((4,),), None))
    assert _text(tokenizer, without.ids).startswith(begins)
    assert with_answer.ids[: len(without.ids)] == without.ids


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("{{ raise_exception('never') }}", "never"),
        ("{% for m in messages %}", "Unexpected end of template"),
        ("{{ messages[0].content + 1 }}", "can only concatenate str"),
        ("hello", "leaves the user's message out"),
        ({"tool_use": TURNS}, "default"),
    ],
)
def test_a_broken_template_is_one_line_that_names_it(tokenizer, monkeypatch, template, fault):
    monkeypatch.setattr(tokenizer, "chat_template", template)
    with pytest.raises(UserError, match=fault) as refused:
        prompt.build(tokenizer, PAIRS, ((4,),), None, "rows")
    assert tokenizer.name_or_path in str(refused.value)
    assert "\n" not in str(refused.value)
    assert str(refused.value).count("chat template of") == 1


def test_the_end_of_a_turn_is_that_of_the_template(tokenizer, monkeypatch):
    """Only a special token ends a turn, not text."""
    for template, end in ((None, None), (TURNS, None), (TURNS.replace("<end>", "</s>"), tokenizer.eos_token_id)):
        monkeypatch.setattr(tokenizer, "chat_template", template)
        assert prompt.turn_end(tokenizer) == end


def test_a_tokenizer_without_bos_begins_with_the_question(tokenizer):
    without = copy.deepcopy(tokenizer)
    without.bos_token = None
    assert _text(tokenizer, prompt.build(without, PAIRS, ((4,),), None, "rows").ids).startswith("Input 1:")


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
