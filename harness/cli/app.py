"""The command line's verbs. A verb parses its options, calls the function that does the work, and prints."""

import errno
import sys
from typing import Any

import typer

from harness.cli import bench, calibrate, compare, import_log, info, merge, parse, predict, report, solve, ttft
from harness.cli.options import PanelCommand
from harness.errors import UserError
from harness.text import one_line, take_any_encoding

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Which small LLM can I test-time fine-tune inside my budget, on my hardware?\n\n"
    "Examples:\n\n  harness bench qwen-0.5b\n\n"
    '  harness bench qwen-0.5b smollm2-135m --contexts "1024 4096" --precisions "fp16 int4"\n\n'
    "  harness report\n\n  harness ttft ./my-model --tasks 20\n\n  harness doctor",
)


_LONGEST = 380  # letters of a message
_USAGE_ERROR: Any = typer.BadParameter.mro()[1]  # the base of all of typer's, which it gives no public name

# The order is that of --help: first what a new user needs.
for verb in (
    bench.bench,
    info.models,
    bench.plan,
    report.report,
    info.doctor,
    ttft.ttft,
    report.pick,
    solve.solve,
    compare.compare,
    merge.merge,
    ttft.coverage,
    predict.predict,
    calibrate.calibrate,
    import_log.import_log,
):
    app.command(cls=PanelCommand)(verb)


def main(words: list[str] | None = None) -> None:
    """Runs a verb. Exit codes: 0 done, 1 nothing measured or a gate that failed, 2 bad input, 130 interrupted."""
    take_any_encoding()
    words = sys.argv[1:] if words is None else words
    try:
        if any("\0" in word for word in words):
            raise UserError("the command line holds a NUL character; leave it out")
        words = parse.ray_words(words)
        code = app(words or ["--help"], prog_name="harness", standalone_mode=False)
        if code == 130:
            raise KeyboardInterrupt
        sys.exit(code or 0)
    except UserError as problem:
        _stop(str(problem), 2)
    except KeyboardInterrupt:
        _stop(interrupted(words), 130)
    except _USAGE_ERROR as problem:
        verb = f"harness {words[0]}" if isinstance(problem.ctx and problem.ctx.command, PanelCommand) else "harness"
        _stop(f"{problem.format_message().rstrip('.')}; {verb} --help shows what there is", 2)
    except BrokenPipeError:  # `harness report | head`
        sys.stderr.close()
        sys.exit(0)
    except OSError as problem:
        remedy = "make room or name another folder with --results"
        if problem.errno == errno.ENAMETOOLONG:
            remedy = "no model, file or folder has such a name"
        _stop(f"{problem.filename or ''}: {problem.strerror}; {remedy}", 2)


def interrupted(words: list[str]) -> str:
    """What is said of a verb that was interrupted: of those that keep a record what is in it."""
    kept = {"bench": "cell", "ttft": "arm", "solve": "task"}.get(words[0] if words else "")
    return (
        f"interrupted; every finished {kept} is in the record: run the same command to go on" if kept else "interrupted"
    )


def _stop(text: str, code: int) -> None:
    line = one_line(text)
    # A path of hundreds of words is no less long than one of one.
    short = line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"
    print(f"error: {short}" if code == 2 else text, file=sys.stderr)
    sys.exit(code)
