"""The command line's options that several verbs share. Singular and plural are both taken; old words stay, hidden, for
one version."""

from collections.abc import Callable
from inspect import Signature, signature
from pathlib import Path
from typing import Annotated, Any, get_origin

import typer
from typer.core import TyperCommand

Models = Annotated[
    list[str] | None, typer.Argument(help="Names of models.yaml, hub ids, folders with a config.json, or GGUF files.")
]
Contexts = Annotated[str | None, typer.Option("--contexts", "--context", help='Tokens, as in "1024 4096".')]
Precisions = Annotated[
    str | None,
    typer.Option("--precisions", "--precision", help='Of native fp32 fp16 bf16 int8 int4, as in "native int4".'),
]
Budget = Annotated[float | None, typer.Option(help="Hours for everything; 12 on Kaggle.")]
Steps = Annotated[int | None, typer.Option(help="Optimiser steps to project to.")]
Results = Annotated[Path | None, typer.Option(help="Folder of the record; by default one per device under results/.")]
Recorded = Annotated[Path | None, typer.Option(help="Folder of the record; by default the newest under results/.")]
ModelsFile = Annotated[Path | None, typer.Option(help="The models.yaml to read.")]
LoraTargets = Annotated[
    str | None, typer.Option(help="attention, all-linear or names of modules, as in 'q_proj v_proj'; not the recipe's.")
]
LoraRank = Annotated[int | None, typer.Option("--lora-r", help="Rank of the adapters; not the recipe's.")]
SequencesPerStep = Annotated[
    int | None, typer.Option("--sequences-per-step", help="Sequences of an optimiser step; not the recipe's.")
]
Window = Annotated[
    int | None, typer.Option(help="Most tokens that the models take, instead of what their configs say.")
]
RecipeName = Annotated[
    str | None,
    typer.Option(help="own: this program's step; reference: the plain one of transformers and PEFT, to compare."),
]
TrimVocab = Annotated[
    bool, typer.Option("--trim-vocab", help="Cut the vocabulary to the tokens of ARC prompts: another model.")
]
Kernels = Annotated[
    str, typer.Option(help="auto (measured here), plain, or as in 'attention=sdpa pointwise=compiled'.")
]
Autotune = Annotated[
    bool, typer.Option("--autotune", help="Find the micro-batch and recomputation with most tokens per second.")
]
MicroBatch = Annotated[
    int | None, typer.Option(help="Sequences per forward and backward; by default as many as a card has room for.")
]
Gpus = Annotated[int, typer.Option(help="Cards that share each step's sequences (on a CPU: processes).")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Weights = Annotated[
    str, typer.Option(help="auto (a local copy if there is one, else random), hub, random, a folder, or a GGUF file.")
]
ShardOption = Annotated[
    str | None, typer.Option("--shard", help="A share of the work, as in 3/8; in a scheduler's array its own.")
]
Ray = Annotated[
    str | None,
    typer.Option(help="Work on a Ray cluster: alone for a local one, auto, or HOST:PORT.", metavar="[ADDRESS]"),
]
On = Annotated[str | None, typer.Option("--on", help='With --ray: the types of card to use, as in "t4,l4".')]
Track = Annotated[
    str | None,
    typer.Option(help="Write runs and curves for mlflow, wandb, trackio or tensorboard, into files beside the record."),
]
SeveralFolders = Annotated[list[Path], typer.Argument(help="Folders with a record each.")]
Before = Annotated[Path, typer.Argument(metavar="A", help="A results folder, or its records.jsonl: before.")]
After = Annotated[
    Path,
    typer.Argument(
        metavar="B", help="Likewise: after; it is B that is judged. Or published steps: a folder with rows.csv."
    ),
]
# Older words.
Fit = Annotated[bool, typer.Option("--fit", hidden=True)]


def options_of(configure: Callable[..., Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a verb the options of `configure` in place of its own `**options`, so that they are written once.

    Options are the parameters with typer's help; the verb passes them on: `configure(**options)`.
    """
    shared = [p for p in signature(configure).parameters.values() if get_origin(p.annotation) is Annotated]

    def with_options(verb: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in signature(verb).parameters.values() if p.kind is not p.VAR_KEYWORD]
        # What typer reads.
        whole = Signature([p.replace(kind=p.KEYWORD_ONLY) for p in (*shared, *own)])
        verb.__signature__ = whole  # type: ignore[attr-defined]  # of every function, but not in typeshed
        return verb

    return with_options


# Heading in --help -> the parameters under it.
PANELS = {
    "What": (
        "model", "weights", "precision", "precisions", "context", "contexts", "gpu", "arms", "dataset", "solutions",
        "tasks", "grid_limit", "encoding", "too_long", "scope", "views", "arm", "decode", "select", "tokenizer",
        "tokens_per_task", "window", "beyond_window", "trim_vocab", "models_file", "seed",
    ),
    "Step": (
        "recipe", "compute", "method", "split", "lora_r", "lora_targets", "adapter_dtype", "optimizer", "learning_rate",
        "sequences_per_step", "micro_batch", "checkpointing", "autotune", "kernels",
    ),
    "Budget": (
        "budget_hours", "steps", "test_tasks", "sample_seconds", "cap_seconds", "arc_lengths", "accuracy", "project_to",
        "max_context", "max_batch", "smallest", "price", "deadline", "passes", "repeats",
    ),
    "Device": ("device", "gpus", "workers", "ray", "on", "shard"),
    "Output": (
        "gate", "tolerance", "deviations", "drift", "any_device", "allow_missing", "results", "fresh", "retry", "force",
        "csv", "file_format", "published", "show", "pictures", "out", "emit", "into", "html", "history", "notes",
        "figures", "track", "help",
    ),
}  # fmt: skip


class PanelCommand(TyperCommand):
    """A verb whose --help has its options under `PANELS`; typer's own panels need rich, which is slow to import."""

    def get_short_help_str(self, limit: int = 0) -> str:
        """The whole first paragraph: it is wrapped, and nobody knows what was cut off."""
        return " ".join((self.help or "").partition("\n\n")[0].split())

    def format_options(self, ctx: Any, formatter: Any) -> None:
        params = self.get_params(ctx)
        arguments = [p.get_help_record(ctx) for p in params if p.param_type_name == "argument"]
        named = [p for p in params if p.param_type_name != "argument"]  # a model is an option of one verb
        options = {p.name: record for p in named if (record := p.get_help_record(ctx))}
        panels = {heading: [options[name] for name in names if name in options] for heading, names in PANELS.items()}
        for heading, records in {"Arguments": list(filter(None, arguments)), **panels}.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)
