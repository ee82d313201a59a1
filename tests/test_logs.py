"""What is read of others' logs, and what is not taken for one."""

import copy
import json
import math

import pytest
from helpers import logs

from harness.errors import UserError
from harness.logs.logged import ALLOCATED, GIB, RESERVED, count, positive, sequences_of
from harness.logs.reading import read_log


@pytest.fixture
def read(tmp_path):
    def of(content):
        path = tmp_path / "log"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return read_log(path)

    return of


def test_a_trainer_state_tells_steps_seconds_tokens_and_sequences(read):
    run = read(logs.STATE)
    assert (run.steps, run.seconds, run.tokens, run.flos) == (30, 9.0, logs.TOKENS, None)
    assert (run.sequences_per_step, run.micro_batch, run.card, run.model) == (8, 4, None, None)
    with_flos = read({**logs.STATE, "total_flos": 1.5e12})
    assert with_flos.flos == 1.5e12


def test_a_checkpoint_of_a_run_that_goes_on_has_no_seconds(read):
    unfinished = {**logs.STATE, "log_history": logs.STATE["log_history"][:1]}
    assert read(unfinished).seconds is None


def test_the_results_that_a_trainer_saves_give_their_steps_by_the_rate(read):
    run = read({"epoch": 1.0, **logs.STATE["log_history"][-1]})
    assert (run.steps, run.seconds) == (30, 9.0)
    # Three decimals of 20000 s leave twenty numbers of steps.
    assert read({"train_runtime": 20000.0, "train_steps_per_second": 0.333}).steps is None


def test_printed_output_of_transformers(read):
    run = read(logs.PRINTED)
    assert (run.steps, run.seconds, run.tokens) == (30, 9.0, logs.TOKENS)
    assert (run.sequences_per_step, run.micro_batch, run.trainable) == (8, 4, 9216)


def test_the_table_of_metrics_has_hours_and_its_own_unit_of_flops(read):
    run = read("  total_flos   =   1234GF\n  train_runtime    = 1:02:03.5\n  global_step = 10\n")
    assert run.flos == 1234 * 2**30 and run.seconds == 3723.5 and run.steps == 10


def test_an_unsloth_notebook(read):
    run = read(logs.NOTEBOOK)
    assert (run.tool, run.model, run.card) == ("Unsloth", "unsloth/Meta-Llama-3.1-8B-bnb-4bit", "Tesla T4")
    assert (run.precision, run.method, run.lora_r, run.window) == ("int4", "lora", 16, 2048)
    assert (run.steps, run.seconds, run.sequences_per_step, run.micro_batch, run.cards) == (60, 509.3459, 8, 2, 1)
    assert (run.trainable, run.flos) == (41_943_040, 5726714157219840.0)
    assert run.peak_bytes == 7.6 * GIB and run.peak_of == RESERVED


def test_the_card_of_an_older_banner_and_of_colabs_metadata(read):
    older = logs.UNSLOTH.replace("Tesla T4. Num GPUs = 1. Max", "GPU: NVIDIA A100-SXM4-40GB. Max")
    assert read(older + logs.UNSLOTH_STATS).card == "NVIDIA A100-SXM4-40GB"
    notebook = copy.deepcopy(logs.NOTEBOOK)
    notebook["cells"][1]["outputs"] = []
    assert read(notebook).card == "T4"


def test_a_notebook_without_outputs_is_no_log(read):
    notebook = copy.deepcopy(logs.NOTEBOOK)
    for cell in notebook["cells"]:
        cell["outputs"] = []
    with pytest.raises(UserError, match="is no log of a training"):
        read(notebook)


def test_axolotl(read):
    run = read(logs.AXOLOTL)
    assert (run.tool, run.model) == ("axolotl", "HuggingFaceTB/SmolLM2-360M-Instruct")
    assert (run.precision, run.method, run.lora_r, run.window, run.packed) == ("int4", "lora", 32, 4096, True)
    assert (run.sequences_per_step, run.tokens, run.steps, run.seconds) == (8, 1310720, 40, 400)
    assert run.peak_bytes == 5.2 * GIB
    allocated = read(logs.AXOLOTL.replace("'memory/device_reserved (GiB)': '5.2', ", ""))
    assert allocated.peak_bytes == 4.1 * GIB and allocated.peak_of == ALLOCATED


def test_pefts_method_comparison(read):
    run = read(logs.PEFT)
    assert (run.model, run.card, run.precision) == ("meta-llama/Llama-3.2-3B", "NVIDIA L40S", "bf16")
    assert (run.method, run.lora_r, run.lora_targets) == ("lora", 32, "q_proj v_proj")
    assert (run.steps, run.seconds, run.tokens) == (5000, 1700.0, 850 * 2500 + 850 * 2480)
    assert (run.sequences_per_step, run.peak_bytes) == (4, 22292725760)
    older = copy.deepcopy(logs.PEFT)
    older["train_info"]["cuda_memory_max"] = older["train_info"].pop("accelerator_memory_max")
    assert read(older).peak_bytes == 22292725760


@pytest.mark.parametrize("content", ["", "hello", "{", "[]", "{}", "\x00\xff", '{"cells": 3}', "[1, 2]", "global: 3"])
def test_what_is_no_log_is_one_line(read, content):
    with pytest.raises(UserError, match="is no log of a training; it takes"):
        read(content)


def test_a_file_that_cannot_be_read(tmp_path):
    for path in (tmp_path, tmp_path / "nosuch"):
        with pytest.raises(UserError, match="name a log"):
            read_log(path)


@pytest.mark.parametrize("value", [None, True, "x", "", -1, 0, math.nan, math.inf, "nan", "1e999", [1], {}, 10**400])
def test_what_is_no_number_of_a_run(value):
    assert positive(value) is None and count(value) is None


def test_sequences_per_step_only_where_the_rates_leave_one_number():
    assert sequences_of(0.942, 0.118) == 8
    assert sequences_of("26.667", "3.333") == 8
    assert sequences_of(0.05, 0.003) is None  # 14 to 20
    assert sequences_of(1.0, 0.0) is None
