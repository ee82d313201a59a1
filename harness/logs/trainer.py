"""transformers' own files: trainer_state.json, and the results that its Trainer saves."""

from typing import Any

from harness.logs.logged import LoggedRun, count, mapping, positive, sequences_of

_STATE, _RESULTS = "trainer_state.json", "transformers' results"
# The last two are TRL's and axolotl's; both count what is no padding.
_TOKENS = ("num_input_tokens_seen", "num_tokens", "tokens/total")


def is_state(value: Any) -> bool:
    return isinstance(mapping(value).get("log_history"), list)


def read_state(state: dict[str, Any]) -> LoggedRun:
    """The run of a trainer_state.json. Its last entry has the seconds, if the run came to its end."""
    history = [entry for entry in state["log_history"] if isinstance(entry, dict)]
    summary = next((entry for entry in reversed(history) if "train_runtime" in entry), {})
    run = read_results(summary)
    tokens = next(
        (n for entry in [state, *reversed(history)] for key in _TOKENS if (n := positive(entry.get(key)))), None
    )
    steps = count(state.get("global_step")) or count(summary.get("step")) or run.steps
    peaks = [n for entry in history if (n := positive(entry.get("memory/device_reserved (GiB)")))]
    return LoggedRun(
        tool=_STATE,
        steps=steps,
        seconds=run.seconds,
        tokens=tokens,
        flos=positive(state.get("total_flos")) or run.flos,
        sequences_per_step=run.sequences_per_step,
        micro_batch=count(state.get("train_batch_size")),
        peak_bytes=max(peaks) * 2**30 if peaks else None,
    )


def is_results(value: Any) -> bool:
    return "train_runtime" in mapping(value)


def read_results(results: dict[str, Any]) -> LoggedRun:
    """The run of train_results.json or of the metrics that `train()` returns."""
    seconds, rate = positive(results.get("train_runtime")), positive(results.get("train_steps_per_second"))
    # The rate has three decimals: steps only where these give one number.
    steps = None
    if seconds and rate and seconds * 5e-4 < 0.5:
        steps = count(round(seconds * rate))
    return LoggedRun(
        tool=_RESULTS,
        steps=steps,
        seconds=seconds,
        tokens=next((n for key in _TOKENS if (n := positive(results.get(key)))), None),
        flos=positive(results.get("total_flos")),
        sequences_per_step=sequences_of(results.get("train_samples_per_second"), rate),
    )
