"""From a log of somebody's run to a row that predictions can be compared with and calibrated on.

What the log does not tell, the user does; what cannot be true is refused.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from harness.catalog import accelerators, precisions
from harness.catalog.accelerators import CUDA, Accelerator
from harness.catalog.activations import layers_and_width, number, text_part
from harness.catalog.models import Catalog
from harness.catalog.precisions import Precision
from harness.digits import rounded
from harness.errors import UserError
from harness.files import home_relative
from harness.logs.logged import ALLOCATED, LoggedRun
from harness.predict import calibration_files, logged_step, varied_lengths
from harness.predict.calibration import Calibration, prior
from harness.predict.logged_step import Stated
from harness.predict.prediction import Prediction, compute_of
from harness.predict.query import PredictQuery, Unpredictable, predict_all
from harness.predict.trace_pool import TracePool
from harness.records.cell import FULL, Cell, Goal, ModelSpec, Recipe
from harness.records.imported import ImportedRun, from_json, key_of, to_json

_GIB = 2**30
_ROUNDING = 1.02  # of memory: the table's cards have theirs to three digits
_SHORT = 256  # tokens of the trace that counts parameters
_GOAL = Goal(1.0, 1, 1)  # of a prediction whose hours nobody looks at
# FLOPs per parameter and token: two forward, two for the activations' gradients, two for the weights' if these train.
_LEAST_FLOPS, _FULL_FLOPS = 4, 6
_LEAST_OF_COUNTED = 0.8  # of the counted tokens: total_flos counts padding too
# Trainers that have torch's allocator grow its blocks (expandable_segments), by the sources of Unsloth 2024.9 and of
# axolotl 0.8.0; PEFT's comparison empties the allocator every few steps.
_GROWING_BLOCKS = ("Unsloth", "axolotl", "PEFT method_comparison")
_TOTAL_FLOS = 6  # transformers' floating_point_ops, whatever is trained


def imported(
    run: LoggedRun, path: Path, stated: Stated, catalog: Catalog, pool: TracePool
) -> tuple[ImportedRun, Prediction]:
    """The row of a run, and what is predicted of its cell. Raises UserError, with the reason, where there is none."""
    if stated.steps:
        run = replace(run, steps=stated.steps)
    steps, step_s = _pace_of(run)
    spec = stated.spec or logged_step.model_of(run, catalog)
    card = logged_step.card_of(run, stated.card)
    precision = stated.precision or logged_step.precision_of(run, card)
    recipe = logged_step.recipe_of(run, stated, catalog.recipe, card.count, precision)
    # Tokens may follow from the FLOPs that transformers counts, and these from the number of parameters.
    tokens = _tokens_of(run, stated, recipe, lambda: _predicted(spec, precision, recipe, _SHORT, card, pool)) / steps
    context = round(tokens / recipe.sequences_per_step)
    if not 2 <= context <= spec.max_context:
        per_step = f"{rounded(tokens, 4)} tokens per step of {recipe.sequences_per_step} sequences"
        raise UserError(
            f"{per_step} are {context} per sequence, and {spec.name} takes 2 to {spec.max_context}; "
            "give --sequences-per-step or --model"
        )
    predicted = _predicted(spec, precision, recipe, context, card, pool)
    _must_be_possible(run, step_s, tokens, predicted)
    cell = Cell(
        model=spec,
        precision=precision.name,
        compute_dtype=compute_of(precision, card),
        context=context,
        recipe=recipe,
        weights="log",
        device=CUDA,
        device_name=card.name,
        why="imported",
    )
    source = home_relative(path)
    row = ImportedRun(
        # The same log read in another way takes the place of what it was taken for before.
        key=key_of(source, (run.seconds, run.tokens, run.flos, run.peak_bytes)),
        cell=cell,
        step_s=step_s,
        tokens_per_step=tokens,
        steps=steps,
        peak_bytes=int(run.peak_bytes) if run.peak_bytes else None,
        peak_of=run.peak_of if run.peak_bytes else "",
        tool=run.tool,
        one_length=run.packed or stated.context is not None,
        source=source,
        notes=(*run.notes, *logged_step.assumptions(run, stated, recipe)),
    )
    try:
        return from_json(to_json(row)), predicted
    except ValueError as problem:
        raise UserError(f"its figures are none that a run can have ({problem})") from None


def peak_as_logged(run: ImportedRun, predicted: Prediction) -> float:
    """Bytes that are predicted of what the log's peak is of: the allocator's, which sees no context of the card."""
    if run.peak_of == ALLOCATED:
        return predicted.trace.memory.total
    many_lengths = run.tool not in _GROWING_BLOCKS and not run.one_length
    peak = varied_lengths.reserved(predicted).size if many_lengths else predicted.peak_bytes
    return peak - predicted.accelerator.context_bytes


def predictable(rows: Sequence[ImportedRun], pool: TracePool) -> list[tuple[ImportedRun, Prediction]]:
    """Rows whose cells can be predicted, each with its prediction, by the prior: to fit a calibration on."""
    pairs = []
    for row in rows:
        cell, cards = row.cell, max(row.cell.recipe.data_parallel, row.cell.recipe.layer_split)
        try:
            card = replace(accelerators.find(cell.device_name), count=cards)
            precision = precisions.find(cell.precision)
            pairs.append((row, _predicted(cell.model, precision, cell.recipe, cell.context, card, pool, prior(CUDA))))
        except UserError:
            continue
    return pairs


def _pace_of(run: LoggedRun) -> tuple[int, float]:
    """Steps, and seconds per step."""
    if not run.seconds:
        raise UserError("it tells no seconds of training (train_runtime): the run may not have come to its end")
    if not run.steps:
        raise UserError("it does not tell how many steps were made in these seconds; give --steps")
    return run.steps, run.seconds / run.steps


def _tokens_of(run: LoggedRun, stated: Stated, recipe: Recipe, short: Callable[[], Prediction]) -> float:
    """Tokens of the whole run, padding included where that is known."""
    steps = run.steps or 1
    if stated.context:
        return float(stated.context * recipe.sequences_per_step * steps)
    if run.flos:
        traced = short()
        trained = 0 if recipe.method == FULL else run.trainable or traced.trace.trainable
        tokens = run.flos / (_TOTAL_FLOS * (_without_embeddings(traced) + trained))
        if run.tokens and tokens < _LEAST_OF_COUNTED * run.tokens:
            raise UserError(
                f"by total_flos {traced.spec.name} has seen {rounded(tokens, 4)} tokens, and {rounded(run.tokens, 4)} "
                "are counted; give the right --model, --method or --context"
            )
        return tokens
    if run.tokens:
        return run.tokens
    if run.packed and run.window:
        return float(run.window * recipe.sequences_per_step * steps)
    raise UserError(
        "it tells no tokens (total_flos or num_input_tokens_seen); give --context, the tokens of its sequences"
    )


def _without_embeddings(predicted: Prediction) -> int:
    """Parameters as transformers' num_parameters(exclude_embeddings=True) counts them: a head that shares its matrix
    with the embeddings is left out too."""
    config = predicted.spec.architecture
    _, width = layers_and_width(config)
    return max(1, predicted.trace.params - width * number(text_part(config), "vocab_size"))


def _must_be_possible(run: LoggedRun, step_s: float, tokens: float, predicted: Prediction) -> None:
    """Raises UserError for a step faster than its products at the card's peak, and for more memory than it has."""
    card, recipe = predicted.accelerator, predicted.recipe
    # Of a model with experts a token meets a part of the parameters: what the forward pass has computed.
    trace = predicted.trace
    forward = sum(op.count * op.flops for op in trace.ops if not op.backward) / (trace.sequences * trace.tokens)
    per_parameter = _FULL_FLOPS if recipe.method == FULL else _LEAST_FLOPS
    per_token = per_parameter * min(_without_embeddings(predicted), forward / 2)
    fastest = max(max(both) for both in card.rates.values()) * recipe.data_parallel
    least_s = per_token * tokens / fastest
    if step_s < least_s:
        raise UserError(
            f"{rounded(step_s)} s per step of {rounded(tokens, 4)} tokens is faster than {card.name} can be: at its "
            f"peak it takes {rounded(least_s)} s; give the right --gpu, --model or --context"
        )
    if run.peak_bytes and run.peak_bytes > _ROUNDING * card.memory_bytes:
        peak, has = (rounded(count / _GIB, 4) for count in (run.peak_bytes, card.memory_bytes))
        raise UserError(f"a peak of {peak} GiB is more than the {has} that {card.name} has; give the right --gpu")


def _predicted(  # a cell, and what it is predicted by
    spec: ModelSpec,
    precision: Precision,
    recipe: Recipe,
    context: int,
    card: Accelerator,
    pool: TracePool,
    calibration: Calibration | None = None,
) -> Prediction:
    """The prediction of one cell. Raises UserError where there is none."""
    query = PredictQuery(
        models=[spec],
        precisions=[precision],
        contexts=[context],
        accelerators=[(card, calibration or calibration_files.for_card(card))],
        recipes={precision.name: recipe},
        goal=_GOAL,
    )
    (answer,) = predict_all(query, pool)
    if isinstance(answer, Unpredictable):
        raise UserError(f"{spec.name} {precision.name}: {answer.reason}")
    return answer
