"""The verb import-log from the command line, and calibrate on what it wrote."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from helpers import logs

import harness
from harness.catalog import accelerators, precisions
from harness.cli.app import main
from harness.errors import UserError
from harness.logs.logged import LoggedRun
from harness.predict import imported, logged_step
from harness.predict.logged_step import Stated
from harness.predict.roofline import Op
from harness.records import store
from harness.records.cell import Recipe
from harness.records.imported import ROWS

EIGHT = ("--sequences-per-step", "8")
ENDED = {"train_runtime": 9.0}
MINE = ("--model", "arc-tiny", "--gpu", "t4", "--precision", "fp16")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    logs.write(tmp_path / "logs")
    return tmp_path


def run(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main(["import-log", *map(str, words)])
    return ended.value.code, capsys.readouterr()


def rows_in(path):
    return store.read(path / ROWS.name, ROWS)[0]


def test_a_log_becomes_a_row_that_calibrate_fits_on(folder, capsys):
    code, shown = run(capsys, "logs/trainer_state.json", "logs/train.txt", "logs/nosuch.json", *MINE)
    assert code == 0 and "IMPORTED" in shown.out and max(map(len, shown.out.splitlines()[:12])) <= 80
    assert "put aside: logs/nosuch.json: cannot be read" in shown.out
    first, second = rows_in(folder / "results/imported-t4")
    assert first.evidence == "imported" and first.source == "logs/trainer_state.json"
    assert (first.step_s, first.tokens_per_step, first.cell.context, first.steps) == (0.3, 512.0, 64, 30)
    assert second.cell == first.cell and second.key != first.key
    # The same logs again are the same rows.
    run(capsys, "logs/trainer_state.json", "logs/train.txt", *MINE)
    assert rows_in(folder / "results/imported-t4") == [first, second]
    # From Python they are the same, too.
    again = harness.import_log("logs/train.txt", model="arc-tiny", gpu="t4", precision="fp16")
    assert again.runs == [second] and again.frame.loc[0, "step_s"] == 0.3 and not again.aside
    with pytest.raises(SystemExit) as ended:
        main(["calibrate"])
    assert ended.value.code == 0 and "t4: 2 cells of arc-tiny" in capsys.readouterr().out
    prediction = harness.predict(
        "arc-tiny", gpu="t4", precisions="fp16", contexts=64, recipe="reference", micro_batch=4, sequences_per_step=8
    ).frame.iloc[0]
    # Fitted on them, a prediction of such a run is what they took, but for the prior's pull.
    assert "2 of them imported" in prediction["source"] and "elsewhere" in prediction["evidence"]
    assert prediction["micro_step_s"] == pytest.approx(0.15, rel=0.15)


def test_tokens_follow_from_the_flops_that_transformers_counts(folder, capsys):
    """6 x (parameters without embeddings + adapters) x tokens."""
    same = {"recipe": "reference", "micro_batch": 4, "sequences_per_step": 8}
    (answer,) = harness.predict("arc-tiny", gpu="t4", precisions="fp16", contexts=256, **same).answers
    counted = answer.trace.params - 17 * 160 + answer.trace.trainable
    state = {**logs.STATE, "num_input_tokens_seen": 0, "total_flos": 6.0 * counted * logs.TOKENS}
    (folder / "state.json").write_text(json.dumps(state))
    code, _ = run(capsys, "state.json", *MINE, "--results", "mine")
    assert code == 0
    assert rows_in(folder / "mine")[0].tokens_per_step == pytest.approx(512.0)


CASES = (
    (("logs/trainer_state.json",), "names no model; give --model"),
    (("logs/trainer_state.json", "--model", "arc-tiny"), "names no card; give --gpu"),
    (("logs/trainer_state.json", *MINE[:4]), "give --precision"),
    (("logs/trainer_state.json", "--model", "nosuch"), "unknown model 'nosuch'"),
    (("logs/trainer_state.json", *MINE, "--gpu", "t5"), "unknown accelerator 't5'"),
    (("logs/trainer_state.json", *MINE, "--method", "lori"), "unknown method 'lori'"),
    (("logs/trainer_state.json", *MINE, "--context", "0"), "--context must be"),
    (("logs/trainer_state.json", *MINE, "--sequences-per-step", "4", "--context", "4096"), "takes 2 to 2048"),
    (("nosuch",), "cannot be read"),
    (("logs",), "is no regular file"),
)


@pytest.mark.parametrize(("words", "message"), CASES, ids=lambda case: case if isinstance(case, str) else "")
def test_bad_input_is_one_line_and_exit_code_2(folder, capsys, words, message):
    code, shown = run(capsys, *words)
    assert code == 2 and message in shown.err and shown.err.count("\n") == 1
    assert not list(folder.glob(f"**/{ROWS.name}"))


@pytest.mark.parametrize(
    ("changes", "words", "message"),
    [
        ({"num_input_tokens_seen": 0}, MINE, "tells no tokens"),
        ({"log_history": []}, MINE, "no seconds of training"),
        ({"global_step": 0, "log_history": [ENDED]}, (*MINE, *EIGHT), "how many steps"),
        ({"log_history": [ENDED]}, MINE, "give --sequences-per-step"),
        ({"num_input_tokens_seen": 1e9, "total_flos": 1e12}, MINE, "give the right --model"),
        ({"train_batch_size": 3}, MINE, "give --micro-batch, --sequences-per-step or --gpu"),
        ({"num_input_tokens_seen": 1e9}, MINE, "give --sequences-per-step or --model"),
        ({"log_history": [{"train_runtime": 1e-5}]}, (*MINE, *EIGHT), "faster than t4 can be"),
    ],
)  # fmt: skip
def test_logs_without_what_is_needed_and_impossible_ones(folder, capsys, changes, words, message):
    (folder / "state.json").write_text(json.dumps({**logs.STATE, **changes}))
    code, shown = run(capsys, "state.json", *words)
    assert code == 2 and message in shown.err and shown.err.count("\n") == 1


def test_what_is_assumed_of_a_step_is_said_and_what_is_told_is_not(folder, capsys):
    code, shown = run(capsys, "logs/trainer_state.json", *MINE)
    told = " ".join(shown.out.split())
    assert code == 0 and "assumed, for it does not tell: --method lora, --lora-r" in told
    assert "--checkpointing all" in told and "--micro-batch" not in told.partition("assumed")[2]
    whole = LoggedRun(
        method="lora", lora_r=8, lora_targets="q_proj", micro_batch=4, recompute="none", cards=1, sequences_per_step=8
    )
    recipe = logged_step.recipe_of(whole, Stated(), Recipe(), 1, precisions.find("int4"))
    assert logged_step.assumptions(whole, Stated(), recipe) == () and recipe.gradient_checkpointing == "none"


def test_a_log_that_is_read_in_another_way_takes_the_place_of_its_row(folder, capsys):
    """So that calibrate does not fit on what a run was taken for by mistake."""
    run(capsys, "logs/trainer_state.json", *MINE)
    run(capsys, "logs/trainer_state.json", *MINE, "--steps", "15", "--context", "64")
    (row,) = rows_in(folder / "results/imported-t4")
    assert (row.steps, row.step_s, row.cell.context) == (15, 0.6, 64)


def test_the_number_of_cards_is_the_logs_or_asked_for(folder, capsys):
    (folder / "two").write_text(logs.PRINTED.replace("accumulation) = 8", "accumulation) = 16"))
    code, shown = run(capsys, "two", *MINE)
    assert code == 2 and "its batch sizes tell of 2; give 2xt4" in shown.err
    code, shown = run(capsys, "two", *MINE[:2], "--gpu", "2xt4", *MINE[4:], "--results", "mine", "--context", "64")
    assert code == 0 and rows_in(folder / "mine")[0].cell.recipe.data_parallel == 2
    smi = "".join(f"|   {i}  Tesla T4                       On  | 00000000:00:04.0 Off |\n" for i in range(2))
    (folder / "smi").write_text(f"{smi}{{'train_runtime': 9.5}}\n")
    words = ("--model", "arc-tiny", "--precision", "fp16", "--steps", "30")
    code, shown = run(capsys, "smi", *words)
    assert code == 2 and "it shows 2 cards, and not how many share a step; give --gpu, as in t4 or 2xt4" in shown.err


def test_a_process_per_card_is_assumed_and_said_where_nothing_tells(folder, capsys):
    words = ("logs/trainer_state.json", *MINE[:2], "--gpu", "2xt4", *MINE[4:], "--context", "64")
    code, shown = run(capsys, *words)
    assert code == 0 and "a process per card (torch.nn.DataParallel is slower" in " ".join(shown.out.split())
    # Steps of 4 in all, of micro-batches of 4: one process may have shared them.
    code, shown = run(capsys, *words, "--sequences-per-step", "4")
    assert code == 2 and "as one process would on all cards (torch.nn.DataParallel)" in shown.err


def test_a_model_with_experts_may_be_faster_than_all_its_parameters(monkeypatch):
    """Of 1000 million parameters a token meets 100 million here: 0.4 GFLOPs at the least, not 4."""
    forward = Op("gemm", False, "bf16", 2e8 * 64, 1.0, 1)
    trace = SimpleNamespace(ops=(forward, replace(forward, backward=True)), sequences=1, tokens=64)
    card = accelerators.find("l4")
    predicted = SimpleNamespace(accelerator=card, recipe=Recipe(), trace=trace)
    monkeypatch.setattr(imported, "_without_embeddings", lambda predicted: 10**9)
    least_s = 4e8 * 64 / max(max(both) for both in card.rates.values())
    imported._must_be_possible(LoggedRun(), 1.01 * least_s, 64, predicted)
    with pytest.raises(UserError, match="faster than l4 can be"):
        imported._must_be_possible(LoggedRun(), 0.99 * least_s, 64, predicted)


def test_more_memory_than_the_card_has_is_refused(folder, capsys):
    (folder / "log").write_text(logs.PRINTED + "Peak reserved memory = 40.0 GB.\n")
    code, shown = run(capsys, "log", *MINE)
    assert code == 2 and "a peak of 40 GiB is more than the 14.7 that t4 has" in shown.err


def test_where_no_log_of_several_can_be_used_the_code_is_1(folder, capsys):
    code, shown = run(capsys, "nosuch", "logs/peft.json", "--model", "arc-tiny", "--gpu", "t4", "--context", "4096")
    assert code == 1 and shown.out.count("put aside") == 2 and not shown.err


def test_an_unknown_card_in_the_log_is_named(folder, capsys):
    text = logs.UNSLOTH.replace("Tesla T4", "NVIDIA GeForce GTX 1650") + logs.UNSLOTH_STATS
    (folder / "log").write_text(text)
    code, shown = run(capsys, "log", "--model", "arc-tiny", "--context", "64")
    assert code == 2 and "unknown accelerator 'NVIDIA GeForce GTX 1650'" in shown.err and "--gpu" in shown.err
