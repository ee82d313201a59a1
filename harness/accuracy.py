"""`harness ttft`: finds the device and its native dtype, runs the arms, and shows how far they are."""

import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

from harness.catalog.precisions import DTYPES, compute_dtype, find, native_dtype
from harness.errors import UserError
from harness.inputs import TtftAsked
from harness.profile.provenance import RESULTS, slug
from harness.profile.store import Rows, Store
from harness.report.text import duration
from harness.tune import experiment
from harness.tune.experiment import ArmResult, Trial

ROWS = Rows("accuracy.jsonl", experiment.to_json, experiment.from_json)
_SAY_EVERY_S = 10.0


def measure(
    asked: TtftAsked,
    steps: int,
    context: int,
    views: int,
    encoding: str,
    device: str,
    results: Path | None,
    seed: int,
    fresh: bool,
    curve: bool,
    out: Console,
) -> list[ArmResult]:
    """The results of the asked arms. Raises UserError for values that cannot be, and where memory runs out."""
    for option, value, least in (("--steps", steps, 1), ("--context", context, 64), ("--views", views, 1)):
        if value < least:
            raise UserError(f"{option} must be {least} or more, not {value}")
    if context > asked.model.window:
        raise UserError(f"--context {context} is beyond the window of {asked.model.name}, {asked.model.window} tokens")

    def note(text: str) -> None:
        out.print(Text(text), soft_wrap=True)

    note("looking at the device ...")
    import torch

    from harness.profile.device import choose
    from harness.profile.probe import rates

    found = choose(device)
    probed = rates(torch.device(found.id), DTYPES)
    precision = find(asked.precision or native_dtype(probed))
    store = Store(results or RESULTS / slug(found.name), kind=ROWS)
    if bad := store.mend():
        note(f"{bad} corrupt lines of {store.path} were put aside; the rest is used")
    trial = Trial(
        model=asked.model,
        weights=asked.weights,
        precision=precision.name,
        compute_dtype=compute_dtype(precision, probed),
        device=found.id,
        device_name=found.name,
        recipe=asked.recipe,
        source=asked.source,
        tasks=tuple(puzzle.id for puzzle in asked.puzzles),
        steps=steps,
        context=context,
        encoding=encoding,
        views=views,
        seed=seed,
        curve=curve,
    )
    begun = {}

    def on_step(arm: str, step: int, loss: float) -> None:
        now = time.monotonic()
        first, said = begun.setdefault(arm, (now, now))
        if now - said >= _SAY_EVERY_S and step > 1:
            begun[arm] = (first, now)
            left = (now - first) / (step - 1) * (steps - step)
            note(f"{arm}: step {step} of {steps}, loss {loss:.3f}, {duration(left)} of training left")

    try:
        return experiment.run(trial, asked.puzzles, asked.solutions, asked.arms, store, note, on_step, fresh)
    except torch.OutOfMemoryError:
        raise UserError(f"out of memory at {context} tokens; try a shorter --context or --precision int4") from None
