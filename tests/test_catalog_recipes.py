"""A recipe from models.yaml's and what a user changes of it, and every value that cannot be."""

import re
from dataclasses import replace

import pytest

from harness.catalog import precisions
from harness.catalog.recipes import RecipeOptions, measurable, resolve
from harness.errors import UserError
from harness.records.cell import ALL, DORA, FULL, MLP, NONE, REFERENCE, Recipe

BASE = Recipe(micro_batch=2, gradient_checkpointing=MLP)
HF = {"implementation": "reference", "micro_batch": 1, "prepared_for_kbit": True}  # transformers' and PEFT's step
TRL = replace(BASE, implementation=REFERENCE, micro_batch=1, gradient_checkpointing=ALL)


def test_by_default_nothing_changes():
    assert resolve(BASE, RecipeOptions()) == BASE
    assert resolve(TRL, RecipeOptions()) == TRL


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({"name": "own"}, {}),
        ({"name": "optimized"}, {}),
        ({"name": "reference"}, HF | {"gradient_checkpointing": ALL}),
        (
            {"name": "reference", "micro_batch": 4, "recompute": NONE},
            HF | {"micro_batch": 4, "gradient_checkpointing": NONE},
        ),
        ({"gpus": 2}, {"data_parallel": 2}),
        ({"gpus": 2, "split": "layers"}, {"layer_split": 2}),
        ({"gpus": 1, "split": "layers"}, {}),
        ({"kernels": "plain"}, {"kernels": "plain"}),
        ({"kernels": "pointwise=liger,attention=flash"}, {"kernels": "attention=flash pointwise=liger"}),
        ({"method": "full"}, {"method": FULL}),
        ({"micro_batch": 8}, {"micro_batch": 8}),
        ({"recompute": "all"}, {"gradient_checkpointing": ALL}),
        ({"trim_vocab": True}, {"trim_vocab": True}),
        ({"lora_targets": "all-linear"}, {"lora_targets": "all-linear"}),
        ({"lora_targets": "q_proj, v_proj q_proj"}, {"lora_targets": "q_proj v_proj"}),
        ({"lora_targets": "Wqkv dense"}, {"lora_targets": "Wqkv dense"}),
        ({"learning_rate": 1e-3}, {"learning_rate": 1e-3}),
        ({"lora_r": 256}, {"lora_r": 256}),
        ({"adapter_dtype": "bf16"}, {"adapter_dtype": "bf16"}),
        ({"optimizer": "adamw-8bit"}, {"optimizer": "adamw-8bit"}),
        ({"sequences_per_step": 5}, {"sequences_per_step": 5, "micro_batch": 1}),
        ({"sequences_per_step": 8, "micro_batch": 4}, {"sequences_per_step": 8, "micro_batch": 4}),
        ({"sequences_per_step": 6, "gpus": 3}, {"sequences_per_step": 6, "micro_batch": 1, "data_parallel": 3}),
    ],
)
def test_an_option_changes_its_own_field(options, changed):
    assert resolve(BASE, RecipeOptions(**options)) == replace(BASE, **changed)


@pytest.mark.parametrize(("quantized", "recompute"), [(True, ALL), (False, NONE)])
def test_arc24_says_itself_how_its_cards_are_used(quantized, recompute):
    recipe = resolve(BASE, RecipeOptions(name="arc24", gpus=4), quantized)
    assert (recipe.layer_split, recipe.data_parallel, recipe.method) == (2, 1, DORA)
    assert (recipe.implementation, recipe.micro_batch, recipe.gradient_checkpointing) == (REFERENCE, 1, recompute)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "owm"}, "unknown recipe 'owm'; did you mean own?"),
        ({"name": "zzz"}, "unknown recipe 'zzz'; known: own, reference, arc24"),
        ({"method": "qlora"}, "unknown method 'qlora'; did you mean lora or dora?"),
        ({"split": "zzz"}, "unknown split 'zzz'; known: data, layers"),
        ({"recompute": "zzz"}, "unknown checkpointing 'zzz'; known: none, mlp, all"),
        ({"adapter_dtype": "fp8"}, "unknown adapter dtype 'fp8'"),
        ({"optimizer": "sgd"}, "unknown optimizer 'sgd'"),
        ({"lora_r": 0}, "--lora-r must be a whole number from 1"),
        ({"lora_targets": "mlp"}, "unknown LoRA target 'mlp'; known: attention, all-linear"),
        ({"lora_targets": ""}, "unknown LoRA target ''; known: attention, all-linear"),
        ({"lora_targets": "q_proj all-linear"}, "unknown LoRA target 'all-linear'; did you mean all-linear?"),
        ({"micro_batch": 0}, "--micro-batch must be a whole number from 1 to 1,048,576, not 0"),
        ({"sequences_per_step": 0}, "--sequences-per-step must be a whole number from 1 to 1,048,576, not 0"),
        ({"learning_rate": 0.0}, "--learning-rate must be a number above 0"),
        ({"learning_rate": float("nan")}, "--learning-rate must be a number above 0"),
        ({"gpus": 0}, "--gpus must be a whole number from 1 to 1,024, not 0"),
        ({"gpus": 0, "split": "layers"}, "--gpus must be a whole number from 1 to 1,024, not 0"),
        (
            {"gpus": 3},
            "a step's 16 sequences in micro-batches of 2 cannot be shared equally by 3 cards; give another --sequences",
        ),
        (
            {"micro_batch": 3, "split": "layers"},
            "a step's 16 sequences in micro-batches of 3 cannot be shared equally by 1 cards; give another --sequences",
        ),
        ({"kernels": ""}, "--kernels is empty; write auto, plain, or as in 'attention=sdpa pointwise=compiled'"),
        (
            {"kernels": "plain", "name": "reference"},
            "--kernels chooses for this program's own step; leave it out, or --recipe reference",
        ),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        resolve(BASE, RecipeOptions(**options))


def test_what_can_only_be_predicted_is_not_measured():
    for name in (None, "own", "optimized", "reference"):
        assert measurable(RecipeOptions(name=name)) == RecipeOptions(name=name)
    with pytest.raises(UserError, match=r"^unknown recipe 'arc24'; known: own, reference$"):
        measurable(RecipeOptions(name="arc24"))
    with pytest.raises(UserError, match=r"^--optimizer adamw-8bit can be predicted only"):
        measurable(RecipeOptions(optimizer="adamw-8bit"))


def test_quantised_weights_are_multiplied_in_the_dtype_that_is_named():
    int4 = precisions.find("int4")
    assert precisions.computing_in(int4, None) == int4 and precisions.computing_in(int4, "fp32").compute == "fp32"
    assert precisions.computing_in(precisions.find("fp16"), "fp16").compute == "fp16"
    with pytest.raises(UserError, match=r"^unknown --compute dtype 'fp8'"):
        precisions.computing_in(int4, "fp8")
    with pytest.raises(UserError, match=r"^--compute fp32: bf16 is multiplied as it is stored; name --precision fp32$"):
        precisions.computing_in(precisions.find("bf16"), "fp32")
