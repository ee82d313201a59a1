"""Questions in views and their answers back as grids."""

from helpers.tasks import made_tasks

from harness.arc import augment
from harness.arc.augment import View
from harness.arc.dataset import Questions
from harness.arc.encode import ENCODINGS
from harness.arc.prompt import PromptFormat
from harness.arc.resize import RESIZES
from harness.arc.score import score


def _questions(tokenizer, tasks, views, context=2048):
    return Questions(tasks, PromptFormat(tokenizer=tokenizer, encoding="rows", context=context), views)


def _solved(tokenizer, prompts, rule):
    """Answers by the rule instead of a model: reads the question's last input from the prompt's text."""
    to_text, to_grid = ENCODINGS["rows"]
    texts = ["".join(tokenizer.convert_ids_to_tokens(list(ids))) for ids in prompts]
    inputs = (text.split("Input ")[-1].split(":\n", 1)[1].split("\nOutput")[0] for text in texts)
    return [to_text(rule(to_grid(test_input))) for test_input in inputs]


def test_answers_come_back_from_their_views(tokenizer):
    """A solver that turns by half works in any view; all answers must then be the truth, with the view undone."""

    def turned(grid):
        return tuple(row[::-1] for row in grid[::-1])

    tasks, solutions = made_tasks(4, rule=turned)
    questions = _questions(tokenizer, tasks, views=12)
    assert (len(questions.prompts), questions.skipped) == (48, 0)
    answers = questions.answers(_solved(tokenizer, questions.prompts, turned))
    for task in tasks:
        assert set(answers[task.id][0]) == {solutions[task.id][0]}
    assert all(each.solved for each in score(answers, solutions))


def test_what_does_not_fit_or_is_no_grid_is_counted_wrong(tokenizer):
    tasks, solutions = made_tasks(2)
    questions = _questions(tokenizer, tasks, views=2)
    answers = questions.answers(["x"] * len(questions.prompts))
    assert all(each.answered == each.attempts == 0 for each in score(answers, solutions))
    questions = _questions(tokenizer, tasks, views=2, context=64)
    assert (len(questions.prompts), questions.skipped) == (0, 4)
    assert questions.answers([]) == {task.id: [[None, None]] for task in tasks}


def test_resized_questions_are_answered_in_their_size_and_come_back(tokenizer, monkeypatch):
    """A half turn is the same rule at any size, in tiles, and in a frame; an answer of another size has no vote."""

    def turned(grid):
        return tuple(row[::-1] for row in grid[::-1])

    resizes = [*RESIZES["scale"], *RESIZES["tile"], *RESIZES["pad"][:4]]
    drawn = [View("rotate", resize=resize) for resize in resizes]
    monkeypatch.setattr(augment, "views", lambda count, shown, seed: drawn[:count])
    tasks, solutions = made_tasks(2, rule=turned)
    questions = _questions(tokenizer, tasks, views=len(drawn))
    assert (len(questions.prompts), questions.skipped) == (2 * len(drawn), 0)
    solved = _solved(tokenizer, questions.prompts, turned)
    answers = questions.answers(solved)
    assert all(set(answers[task.id][0]) == {solutions[task.id][0]} for task in tasks)
    # One row less is no scaled or framed grid any more.
    cut = [text.partition("\n")[2] for text in solved]
    scaled = [n for n, resize in enumerate(resizes) if resize.kind in ("scale", "pad")]
    assert all(questions.answers(cut)["t0"][0][n] is None for n in scaled)
    candidates = [grids for _, _, grids in questions.candidates([[text] for text in cut])]
    assert [candidates[n] for n in scaled] == [[]] * len(scaled)
