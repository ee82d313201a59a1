"""What is read of others' logs, and what is not taken for one."""

import copy
import gzip
import json

import pytest
from helpers import logs

from harness.errors import UserError
from harness.logs.logged import ALLOCATED, GIB, RESERVED, sequences_of
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


LOSSES = [{"loss": 2.0, "step": step, "epoch": step / 100} for step in range(10, 101, 10)]
END = {"step": 100, "train_runtime": 60.0, "train_samples_per_second": 8.0, "train_steps_per_second": 1.0}


@pytest.mark.parametrize(
    "end",
    [
        {**END, "train_loss": 1.2, "train_steps_per_second": 1.667},  # older versions: all steps, and losses over all
        {**END, "train_loss": 2.0},  # newer ones: those of the last part
    ],
    ids=["older", "newer"],
)
def test_of_a_resumed_run_only_the_last_part_counts(read, end):
    state = {"global_step": 100, "log_history": [*LOSSES, end], "total_flos": 1e15, "num_input_tokens_seen": 51200}
    run = read(state)
    assert (run.steps, run.seconds, run.flos, run.tokens) == (60, 60.0, 6e14, 30720)
    assert "resumed: 60 of its 100 steps" in run.notes[0]
    # TRL's count begins again, so that nobody knows how many steps it is of.
    trl = {**state, "num_input_tokens_seen": 0, "log_history": [*LOSSES, {**end, "num_tokens": 5000}]}
    assert read(trl).tokens is None


def test_a_run_that_was_continued_after_its_end(read):
    first = {**END, "step": 50, "train_loss": 2.0}
    history = [*LOSSES[:5], first, *LOSSES[5:], {**END, "train_loss": 1.0, "train_steps_per_second": 1.667}]
    assert read({"global_step": 100, "log_history": history}).steps == 50
    # A state in the middle of the second part has the seconds of the first.
    middle = read({"global_step": 80, "log_history": history[:9], "num_input_tokens_seen": 800})
    assert (middle.steps, middle.seconds, middle.tokens) == (50, 60.0, 500)


def test_seconds_beside_a_loss_are_none_of_the_whole_run(read):
    """As a trainer writes and prints them that counts tokens."""
    so_far = {"loss": 2.0, "step": 10, "train_runtime": 3.0, "num_input_tokens_seen": 640}
    assert read({"global_step": 15, "log_history": [so_far]}).seconds is None
    printed = "{'loss': '2', 'epoch': '0.1', 'train_runtime': '3', 'num_input_tokens_seen': 640}\n"
    assert read(f"max_steps: 100\n{printed}").seconds is None
    run = read(f"{printed}{printed}{printed}{logs.PRINTED}")
    assert run.seconds == 9.0 and not run.notes


def test_evaluations_are_no_steps(read):
    """What is evaluated after the training, and before it, is not in its seconds."""
    evaluation = {"eval_runtime": 2.0, "eval_wiki_runtime": 1.0, "step": 20}
    history = [*LOSSES, evaluation, {**END, "train_loss": 2.0, "train_steps_per_second": 1.667}, evaluation]
    assert read({"global_step": 100, "log_history": history}).seconds == 57.0
    row = "{'eval_loss': '2', 'eval_runtime': '2', 'epoch': '%s'}\n"
    head, tail = logs.PRINTED.split("{'train_runtime'")
    printed = row % 0 + head + row % "0.5" + "{'train_runtime'" + tail + row % 1
    run = read(printed)
    assert run.seconds == 7.0 and run.notes == ("less 2 s of evaluations",)
    # Of two trainings, none of the first one's.
    assert read(row % "0.5" + printed.replace("'9'", "'29'") + printed).seconds == 7.0


def test_each_training_has_its_own_figures(read):
    """The steps and tokens of an earlier training in the same console are none of the last one's."""
    first = "TrainOutput(global_step=500, metrics={'train_runtime': 90.5, 'total_flos': 1e15, 'num_tokens': 9.0})\n"
    last = read(first + "{'train_runtime': 10.5, 'train_loss': 1.0}\n")
    assert (last.seconds, last.steps, last.tokens, last.flos) == (10.5, None, None, None)
    assert last.notes == ("the last of 2 trainings in it",)


def test_a_run_that_ended_before_its_plan_does_not_tell_its_steps(read):
    """Rates of older versions are of the plan."""
    ended = logs.PRINTED.replace("'train_loss': '1.9'", "'train_loss': '1.9', 'epoch': '0.4'")
    assert read(ended).steps is None
    assert read(ended.replace("'epoch': '0.4'", "'epoch': '1'")).steps == 30
    # Newer rates are of what was made.
    assert read(logs.PRINTED.replace("'3.333'", "'1.333'")).steps is None


def test_a_resumed_run_is_seen_in_its_output(read):
    resumed = "  Resuming training from checkpoint with epoch 0 and global step 20\n{'train_runtime'"
    run = read(logs.PRINTED.replace("{'train_runtime'", resumed, 1))
    assert (run.steps, run.tokens) == (10, logs.TOKENS / 3)


def test_tokens_that_were_counted_before_the_end_are_not_all(read):
    printed = "{'loss': 2, 'num_tokens': 1000.0, 'epoch': 0.5}\n{'train_runtime': 9.5, 'epoch': 2.0}\n"
    assert read(printed).tokens == 4000
    history = [{"step": 20, "num_tokens": 1000.0}, {"step": 30, "train_runtime": 9.0}]
    assert read({"global_step": 30, "log_history": history}).tokens == 1500


def test_the_cards_that_share_a_step(read):
    assert read(logs.PRINTED).cards == 1
    assert read(logs.PRINTED.replace("accumulation) = 8", "accumulation) = 32")).cards == 4
    smi = "".join(f"|   {i}  Tesla T4                       On  | 00000000:00:04.0 Off |\n" for i in range(2))
    run = read(smi + "max_steps: 30\n{'train_runtime': 9.5}\n")
    assert (run.card, run.cards, run.cards_shown) == ("Tesla T4", None, 2)


def test_whether_activations_are_made_again_is_told(read):
    for word, recompute in (("true", "all"), ("False", "none"), ("'unsloth'", "all")):
        assert read(f"{logs.PRINTED}gradient_checkpointing = {word}\n").recompute == recompute
    assert read(logs.PRINTED).recompute is None


def test_a_flag_of_the_trainer_tells_products_not_weights(read):
    assert "weights are taken to be bf16" in read(f"{logs.PRINTED}bf16=True\n").notes[0]
    assert not read(f"{logs.PRINTED}bf16=True, dtype=torch.bfloat16\n").notes


def test_what_llama_factory_sets(read):
    yaml = "finetuning_type: lora\nlora_rank: 8\nquantization_bit: 4\ncutoff_len: 1024\nbf16: true\n"
    run = read(yaml + logs.PRINTED)
    assert (run.method, run.lora_r, run.precision, run.window, run.notes) == ("lora", 8, "int4", 1024, ())
    assert (
        read(yaml.replace("lora\n", "full\n").replace("lora_rank: 8\nquantization_bit: 4\n", "") + logs.PRINTED).method
        == "full"
    )


def test_a_step_of_unknown_accumulation_is_said(read):
    printed = "per_device_train_batch_size=4\nmax_steps=30\n{'train_runtime': 9.5}\n"
    (note,) = read(printed).notes
    assert read(printed).sequences_per_step == 4 and "a step is taken for one micro-batch, of 4 sequences" in note
    told = read(f"gradient_accumulation_steps=2\n{printed}")
    assert told.sequences_per_step == 8 and not told.notes


def test_what_a_notebook_sets_after_its_training_is_none_of_it(read):
    """Unsloth's notebooks load their adapter again at the end."""
    notebook = copy.deepcopy(logs.NOTEBOOK)
    again = 'FastLanguageModel.from_pretrained(model_name = "lora_model", load_in_8bit = True, max_seq_length = 64)'
    notebook["cells"].append({"cell_type": "code", "source": again})
    assert read(notebook) == read(logs.NOTEBOOK)
    table = {"data": {"text/html": "<th>Step</th><th>Validation Loss</th>"}}
    notebook["cells"][1]["outputs"].append(table)
    assert read(notebook).notes == ("the seconds of its evaluations are in its steps",)


def test_a_comparison_that_failed_made_the_steps_of_its_last_entry(read):
    failed = copy.deepcopy(logs.PEFT)
    failed["train_info"] |= {"status": "failed", "metrics": failed["train_info"]["metrics"][:1]}
    assert (read(failed).steps, read(failed).seconds) == (2500, 850.0)


def test_text_of_other_systems(tmp_path):
    path = tmp_path / "log"
    plain = logs.PRINTED.encode()
    for content in (plain.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + plain, logs.PRINTED.encode("utf-16"),
                    plain.replace(b"'9'", b"\x1b[32m'9'\x1b[0m")):  # fmt: skip
        path.write_bytes(content)
        assert (read_log(path).seconds, read_log(path).sequences_per_step) == (9.0, 8)
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(logs.STATE).encode())
    assert read_log(path).steps == 30


def test_what_is_cut_off_is_not_read_as_less(read, tmp_path):
    """Not even a number whose end is missing."""
    whole = json.dumps(logs.STATE)
    with pytest.raises(UserError, match="cut off or broken; copy the whole file"):
        read(whole[:-3])
    assert read("global_step = 30\n{'train_runtime': 123").seconds is None
    (tmp_path / "log.gz").write_bytes(gzip.compress(whole.encode()))
    with pytest.raises(UserError, match="is packed; unpack it first"):
        read_log(tmp_path / "log.gz")


def test_a_table_of_a_run_of_days(read):
    assert read("  train_runtime = 2 days, 1:00:00.5\n  global_step = 10\n").seconds == 49 * 3600 + 0.5


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


def test_sequences_per_step_only_where_the_rates_leave_one_number():
    assert sequences_of(0.942, 0.118) == 8
    assert sequences_of("26.667", "3.333") == 8
    assert sequences_of(0.05, 0.003) is None  # 14 to 20
    assert sequences_of("203.8", "25.47") == 8  # as newer versions print them, with four digits
    # 50 sequences in 13 steps per epoch, the last one of two: of four, by transformers 5.24.
    assert sequences_of(203.782, 52.983) is None and sequences_of(203.782, 52.983, 13.0) == 4
    assert sequences_of(203.782, 52.983, 2.0) is None  # 4 to 7
    assert sequences_of(1.0, 0.0) is None
