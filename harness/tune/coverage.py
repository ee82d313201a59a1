"""How many of a fine-tune's prompts fit the context, before a model is loaded: what does not must fail in seconds."""

from collections.abc import Sequence

from harness.arc.examples import leave_one_out
from harness.arc.examples import questions as questions_of
from harness.arc.prompt import PromptFormat
from harness.arc.task import Grid, Pair, Task
from harness.errors import UserError
from harness.records.arm import Coverage


def coverage_of(tasks: Sequence[Task], prompts: PromptFormat) -> Coverage:
    """How many questions (with room for the answer) and examples fit the context unshortened.

    Raises UserError where no question fits even when shortened.
    """

    def tokens(demonstrations: Sequence[Pair], test_input: Grid, output: Grid | None) -> int:
        return len(prompts.build(demonstrations, test_input, output).ids)

    limits = {task.id: prompts.max_new_tokens(task) for task in tasks}
    questions = [(task, shown, test_input) for task in tasks for shown, test_input in questions_of(task)]
    needed = [tokens(shown, test_input, None) + limits[task.id] for task, shown, test_input in questions]
    # A question can be shortened to one demonstration, if that is allowed.
    fewest = 1 if prompts.shorten else None
    shortest = min(tokens(shown[:fewest], test_input, None) + limits[task.id] for task, shown, test_input in questions)
    if shortest > prompts.context:
        raise UserError(
            f"none of {len(tasks)} tasks fits {prompts.context} tokens (the shortest needs {shortest}); "
            "ask for a longer --context"
        )
    # Training examples contain their answers.
    examples = [tokens(e.demonstrations, e.test_input, e.output) for task in tasks for e in leave_one_out(task)]
    fitting = [sum(n <= prompts.context for n in counts) for counts in (needed, examples)]
    return Coverage(len(needed), fitting[0], len(examples), fitting[1])
