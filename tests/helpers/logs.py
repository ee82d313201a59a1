"""Logs as others' tools write them, of runs of a small model: 30 steps of 8 sequences of 64 tokens in 9 seconds."""

import json
from pathlib import Path
from typing import Any

TOKENS = 30 * 8 * 64
STATE: dict[str, Any] = {
    "best_metric": None,
    "epoch": 1.0,
    "global_step": 30,
    "max_steps": 30,
    "num_input_tokens_seen": TOKENS,
    "total_flos": 0,
    "train_batch_size": 4,
    "log_history": [
        {"epoch": 0.3, "grad_norm": 1.0, "learning_rate": 1e-4, "loss": 2.1, "step": 10},
        {
            "epoch": 1.0, "step": 30, "total_flos": 0, "train_loss": 1.9, "train_runtime": 9.0,
            "train_samples_per_second": 26.667, "train_steps_per_second": 3.333,
        },
    ],
}  # fmt: skip
# As transformers prints it, with a note of the number of steps.
PRINTED = """***** Running training *****
  Num examples = 240
  Instantaneous batch size per device = 4
  Total train batch size (w. parallel, distributed & accumulation) = 8
  Gradient Accumulation steps = 2
  Total optimization steps = 30
  Number of trainable parameters = 9,216
{'loss': '2.1', 'grad_norm': '1', 'learning_rate': '0.0001', 'epoch': '0.3', 'num_input_tokens_seen': 5120}
{'train_runtime': '9', 'train_samples_per_second': '26.667', 'train_steps_per_second': '3.333', 'train_loss': '1.9'}
{'num_input_tokens_seen': 15360, 'train_tokens_per_second': '1706'}
"""
UNSLOTH = """==((====))==  Unsloth 2025.9.7: Fast Llama patching. Transformers: 4.56.2.
   \\\\   /|    Tesla T4. Num GPUs = 1. Max memory: 14.741 GB. Platform: Linux.
O^O/ \\_/ \\    Torch: 2.8.0+cu126. CUDA: 7.5. CUDA Toolkit: 12.6. Triton: 3.4.0
==((====))==  Unsloth - 2x faster free finetuning | Num GPUs used = 1
   \\\\   /|    Num examples = 51,760 | Num Epochs = 1 | Total steps = 60
O^O/ \\_/ \\    Batch size per device = 2 | Gradient accumulation steps = 4
\\        /    Data Parallel GPUs = 1 | Total batch size (2 x 4 x 1) = 8
 "-____-"     Trainable parameters = 41,943,040 of 8,072,204,288 (0.52% trained)
"""
UNSLOTH_STATS = """509.3459 seconds used for training.
8.49 minutes used for training.
Peak reserved memory = 7.6 GB.
Peak reserved memory for training = 1.6 GB.
"""
RETURNED = (
    "TrainOutput(global_step=60, training_loss=0.9, metrics={'train_runtime': 509.3459, 'train_samples_per_second': "
    "0.942, 'train_steps_per_second': 0.118, 'total_flos': 5726714157219840.0, 'train_loss': 0.9})"
)
NOTEBOOK: dict[str, Any] = {
    "nbformat": 4,
    "metadata": {"colab": {"gpuType": "T4"}},
    "cells": [
        {"cell_type": "markdown", "source": ["# load_in_8bit = True"]},
        {
            "cell_type": "code",
            "source": [
                "from unsloth import FastLanguageModel\n",
                "max_seq_length = 2048 # Choose any!\n",
                "model, tokenizer = FastLanguageModel.from_pretrained(\n",
                '    model_name = "unsloth/Meta-Llama-3.1-8B-bnb-4bit",\n',
                "    load_in_4bit = True,\n    full_finetuning = False, # [NEW!]\n)\n",
                "model = FastLanguageModel.get_peft_model(model, r = 16, lora_alpha = 16)\n",
            ],
            "outputs": [{"output_type": "stream", "name": "stdout", "text": UNSLOTH.splitlines(keepends=True)}],
        },
        {
            "cell_type": "code",
            "source": "trainer_stats = trainer.train()",
            "outputs": [{"output_type": "execute_result", "data": {"text/plain": [RETURNED]}}],
        },
        {"cell_type": "code", "source": [], "outputs": [{"output_type": "stream", "text": UNSLOTH_STATS}]},
    ],
}
AXOLOTL = """[2026-01-01 10:00:00,000] [INFO] [axolotl.cli.config] config:
{
  "adapter": "qlora",
  "base_model": "HuggingFaceTB/SmolLM2-360M-Instruct",
  "gradient_accumulation_steps": 4,
  "load_in_4bit": true,
  "lora_r": 32,
  "micro_batch_size": 2,
  "sample_packing": true,
  "sequence_len": 4096,
}
{'loss': '1.2', 'memory/max_active (GiB)': '4.1', 'memory/max_allocated (GiB)': '4.1', 'memory/device_reserved (GiB)': '5.2', 'tokens/total': 1310720, 'epoch': '0.9'}
{'train_runtime': '400', 'train_samples_per_second': '0.8', 'train_steps_per_second': '0.1', 'train_loss': '1.2'}
 40/40 [06:40<00:00]  max_steps: 40
"""  # noqa: E501  # as axolotl prints it
PEFT: dict[str, Any] = {
    "run_info": {
        "experiment_name": "lora/llama-3.2-3B-rank32",
        "train_config": {
            "model_id": "meta-llama/Llama-3.2-3B", "dtype": "bfloat16", "max_seq_length": 768, "batch_size": 4,
            "max_steps": 5000, "optimizer_type": "AdamW",
        },
        "peft_config": {"peft_type": "LORA", "r": 32, "target_modules": ["v_proj", "q_proj"], "use_dora": False},
    },
    "train_info": {
        "accelerator_memory_reserved_avg": 11868055132, "accelerator_memory_max": 22292725760, "train_time": 1700.0,
        "num_trainable_params": 9175040, "num_total_params": 3221924864, "status": "success",
        "metrics": [
            {"step": 2500, "train samples": 10000, "train time": 850.0, "tokens / sec": 2500.0},
            {"step": 5000, "train samples": 20000, "train time": 850.0, "tokens / sec": 2480.0},
        ],
    },
    "meta_info": {"system_info": {"system": "Linux", "gpu": "NVIDIA L40S"}},
}  # fmt: skip


def write(folder: Path) -> None:
    """One file of each kind, those that a small model can have trained so made for it."""
    folder.mkdir(parents=True, exist_ok=True)
    slow = {**PEFT["train_info"], "train_time": 1e5}
    settings = {**PEFT["run_info"]["train_config"], "max_steps": 2500}
    slow["metrics"] = [{"train time": 1e5, "tokens / sec": 8.0}]
    peft = {**PEFT, "run_info": {**PEFT["run_info"], "train_config": settings}, "train_info": slow}
    files = {"trainer_state.json": STATE, "peft.json": peft, "unsloth.ipynb": NOTEBOOK}
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "train.txt").write_text(PRINTED)
    (folder / "axolotl.txt").write_text(AXOLOTL)
