"""The side of bench.peers that TRL's SFTTrainer runs; TRL comes with the project's `peers` extra."""

import os
import sys
import tempfile
import time
from typing import Any

from bench.peers_sides import READY, Sequences, report
from harness.records.cell import Recipe


def trl(model: Any, recipe: Recipe, compute: str, data: Sequences, best: bool) -> None:
    """Trains on `data` in its order, one optimiser step per line that comes in.

    With TRL's defaults or, with `best`, without checkpointing and with sequences of one length in one batch.
    """
    from datasets import Dataset
    from transformers import TrainerCallback, logging
    from trl import SFTConfig, SFTTrainer

    from harness.catalog import weights
    from harness.train.model import load_tokenizer

    logging.set_verbosity_error()
    cuda = next(model.parameters()).is_cuda
    rows = [{"input_ids": ids, "labels": [-100] * (len(ids) - n) + ids[-n:]} for ids, n in data]
    together = recipe.sequences_per_step if best and len({len(ids) for ids, _ in data}) == 1 else 1

    class Turns(TrainerCallback):
        """Waits for a line before each step, and reports the step when its loss is logged."""

        start = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            if not sys.stdin.readline():
                os._exit(0)
            self.start = time.perf_counter()

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
            if "loss" in logs:
                report(time.perf_counter() - self.start, logs["loss"])

    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder,
            per_device_train_batch_size=together,
            gradient_accumulation_steps=recipe.sequences_per_step // together,
            gradient_checkpointing=not best,
            learning_rate=recipe.learning_rate,
            lr_scheduler_type="constant",
            weight_decay=0.01,
            max_grad_norm=0.0,
            logging_steps=1,
            num_train_epochs=1,
            max_length=None,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=not cuda,
            bf16=compute == "bf16",
            fp16=compute == "fp16",
            train_sampling_strategy="sequential",
            dataset_kwargs={"skip_prepare_dataset": True},
            loss_type="nll",
        )
        trainer = SFTTrainer(
            model=model,
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=load_tokenizer(weights.BUNDLED + "arc-tiny"),
            callbacks=[Turns()],
        )
        print(READY, flush=True)
        trainer.train()
