"""transformers' own files: trainer_state.json, and the results that its Trainer saves."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from harness.logs.logged import LoggedRun, Pace, count, mapping, positive, sequences_of, timed_steps

STATE, _RESULTS = "trainer_state.json", "transformers' results"
_ALL_LOSSES = 0.95  # of the sum of losses at least: a run that was not resumed
# The last two are TRL's and axolotl's; both count what is no padding, and begin again where a run is resumed.
_TOKENS = ("num_input_tokens_seen", "num_tokens", "tokens/total")


def is_state(value: Any) -> bool:
    return isinstance(mapping(value).get("log_history"), list)


def read_state(state: dict[str, Any]) -> LoggedRun:
    """The run of a trainer_state.json. Its last entry has the seconds, if the run came to its end."""
    history = [entry for entry in state["log_history"] if isinstance(entry, dict)]
    # A trainer that counts tokens writes the seconds so far beside every loss.
    ends = [i for i, entry in enumerate(history) if "train_runtime" in entry and "loss" not in entry]
    during, summary = (history[: ends[-1]], history[ends[-1]]) if ends else (history, {})
    run = read_results(summary)
    # The state may be of a run that went on after its end.
    steps = count(summary.get("step")) or count(state.get("global_step")) or run.steps
    rate = summary.get("train_steps_per_second")
    began = _resumed_at(during, summary, steps) if steps else None
    if steps and run.seconds and not began:
        began = steps - (timed_steps(steps, run.seconds, rate) or steps)
    evaluations_s = sum(
        taken
        for entry in during
        if (count(entry.get("step")) or 0) > (began or 0)
        for name, value in entry.items()
        if re.fullmatch(r"eval_(?:\w+_)?runtime", name) and (taken := positive(value))
    )
    pace = Pace.of(steps, run.seconds, evaluations_s, began, rate)
    peaks = [n for entry in history if (n := positive(entry.get("memory/device_reserved (GiB)")))]
    return LoggedRun(
        tool=STATE,
        steps=pace.steps,
        seconds=pace.seconds,
        tokens=pace.part(_counted([state, *reversed(history)], _TOKENS[: 1 if pace.share < 1 else None], steps)),
        flos=pace.part(_counted([state, *reversed(history)], ("total_flos",), steps)),
        sequences_per_step=run.sequences_per_step,
        micro_batch=count(state.get("train_batch_size")),
        peak_bytes=max(peaks) * 2**30 if peaks else None,
        notes=pace.notes,
    )


def _counted(entries: Sequence[dict[str, Any]], names: Sequence[str], steps: int | None) -> float | None:
    """What the first of `entries` that counts one of `names` says of `steps`: it may be of fewer steps, or of more."""
    for entry in entries:
        for name in names:
            if number := positive(entry.get(name)):
                at = count(entry.get("global_step")) or count(entry.get("step"))
                return number * (steps / at if steps and at else 1)
    return None


def _resumed_at(during: Sequence[dict[str, Any]], summary: dict[str, Any], steps: int) -> int | None:
    """The step at which the run of `summary` was resumed, as the entries before it tell; None where none does.

    Older versions divide the losses since then by all `steps`, so that these alone have the mean `train_loss`.
    """
    earlier = [count(entry.get("step")) for entry in during if "train_runtime" in entry and "loss" not in entry]
    if earlier and earlier[-1] and earlier[-1] < steps:
        return earlier[-1]
    losses = [
        (step, loss) for entry in during if (loss := positive(entry.get("loss"))) and (step := count(entry.get("step")))
    ]
    mean = positive(summary.get("train_loss"))
    ordered = all(one[0] < other[0] <= steps for one, other in pairwise(losses))
    if not mean or len(losses) < 2 or not ordered:
        return None
    # From the end backwards, the sum of losses of all steps since each entry.
    since, sums = (steps - losses[-1][0]) * losses[-1][1], {}
    for (before, _), (step, loss) in reversed(list(pairwise([(0, 0.0), *losses]))):
        since += (step - before) * loss
        sums[before] = since
    if mean * steps >= _ALL_LOSSES * since:
        return None
    return min(sums, key=lambda step: abs(sums[step] - mean * steps))


def is_results(value: Any) -> bool:
    return "train_runtime" in mapping(value)


def read_results(results: dict[str, Any]) -> LoggedRun:
    """The run of train_results.json or of the metrics that `train()` returns."""
    seconds, rate = positive(results.get("train_runtime")), positive(results.get("train_steps_per_second"))
    # The rate has three decimals: steps only where these give one number.
    steps = None
    if seconds and rate and seconds * 5e-4 < 0.5:
        steps = count(round(seconds * rate))
    epochs, made = positive(results.get("epoch")), count(results.get("step")) or steps
    return LoggedRun(
        tool=_RESULTS,
        steps=steps,
        seconds=seconds,
        tokens=next((n for key in _TOKENS if (n := positive(results.get(key)))), None),
        flos=positive(results.get("total_flos")),
        sequences_per_step=sequences_of(
            results.get("train_samples_per_second"), rate, made / epochs if made and epochs else None
        ),
    )
