"""The trainable adapter beside a frozen model, and which of its modules have one."""

import re
from typing import Any

import torch
import transformers
from transformers.pytorch_utils import Conv1D

from harness.errors import Unsupported, first_line
from harness.hardware.device import TORCH_DTYPES
from harness.records.cell import DORA, TARGETS, Recipe
from harness.train.compat import import_peft, quiet

peft = import_peft()
_ATTENTION_TARGET, _ALL_LINEAR = TARGETS
# Names that transformers' causal models give to the projections of queries, keys, values and attention's output.
_PROJECTIONS = set(
    # one each, fused, of low rank (latent attention), and other words for them
    """
    q_proj k_proj v_proj o_proj out_proj dense c_proj proj
    qkv_proj query_key_value c_attn q_attn Wqkv qkv in_proj in_proj_qkv in_proj_qkvz query_key kv_proj
    q_a_proj q_b_proj kv_a_proj_with_mqa kv_b_proj o_b_proj q_gate_proj
    query key value query_proj key_proj value_proj to_q to_k to_v to_out q_lin k_lin v_lin out_lin Wq Wk Wv Wo
    project_q project_k project_v attention_out v_proj_current v_proj_delayed receptance output
    """.split()  # noqa: SIM905  # as lines they are read
)
_QUERIES = re.compile(r"^(q|to_q|Wq|c_attn|in_proj|project_q|receptance)|query|qkv")
_INSIDE_ATTENTION = re.compile(r"att(n|ention)|self_att", re.IGNORECASE)
# Parts that see no text, and those that choose tokens for attention; the latter's names are projections' too.
_NO_TEXT = re.compile(r"vision|visual|image|audio|speech", re.IGNORECASE)
_CHOOSING = re.compile(r"index|compress", re.IGNORECASE)
# Kernels of these families read the matrices themselves and go around an adapter: PEFT refuses these names in the first
# five; in the others it would train nothing where the kernels are installed.
_MAMBA = ("falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h", "bamba", "granitemoehybrid", "zamba2")
_AROUND = ("out_proj", "conv1d")
_REMEDY = "use --lora-targets all-linear"

Named = dict[str, torch.nn.Module]


def add_adapter(model: transformers.PreTrainedModel, recipe: Recipe) -> Any:
    """`model` with LoRA on the recipe's matrices, A and B in the recipe's dtype, which is fp32 whatever the base is.

    What PEFT cannot adapt is left out: the output of Mamba's blocks, and linear layers that give something else than a
    product, as some routers do. Raises Unsupported where nothing is left.
    """
    # PEFT keeps A and B in fp32 by default (autocast_adapter_dtype).
    targets = _targets(model, recipe.lora_targets)
    config = peft.LoraConfig(
        r=recipe.lora_r,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=targets,
        use_dora=recipe.method == DORA,
        task_type="CAUSAL_LM",
        # GPT-2's Conv1D keeps its weight transposed.
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )
    try:
        with quiet():
            adapted = peft.get_peft_model(model, config)
    except ValueError as problem:  # as where names stand for a part of what the routed experts hold in one tensor
        raise Unsupported(f"PEFT cannot adapt {recipe.lora_targets}: {first_line(problem)}") from None
    if recipe.adapter_dtype != "fp32":
        for p in adapted.parameters():
            if p.requires_grad:
                p.data = p.data.to(TORCH_DTYPES[recipe.adapter_dtype])
    return adapted


def prepare_for_kbit(model: Any) -> None:
    """Widens to fp32 what is not quantised, as PEFT's prepare_model_for_kbit_training does."""
    for p in model.parameters():
        if p.is_floating_point():
            p.data = p.data.float()


def adapted_names(model: Any) -> str:
    """The names of the modules that have an adapter, without where they stand: "q_proj k_proj v_proj o_proj"."""
    # Experts with several matrices have one adapter inside the other.
    adapted = (name for name, module in model.named_modules() if hasattr(module, "lora_A"))
    return _short(name for name in adapted if _last(name) != "base_layer")


def notes(model: Any, recipe: Recipe) -> tuple[str, ...]:
    """Sentences on what `model`, which has an adapter, does not adapt although the recipe's targets sound so."""
    names = adapted_names(model).split()
    if recipe.lora_targets == _ATTENTION_TARGET and names and not any(map(_QUERIES.search, names)):
        return (f"of attention {' '.join(names)} alone is adapted here; --lora-targets all-linear adapts more",)
    if recipe.lora_targets != _ALL_LINEAR:
        return ()
    # The plain layer of an adapted module is named base_layer.
    left = [name for name in _linear_layers(model) if "base_layer" not in name and "lora_" not in name]
    head = model.get_output_embeddings()
    left = [name for name in left if model.get_submodule(name) is not head]
    sentences = []
    if left:
        sentences.append(f"without an adapter, for PEFT cannot adapt them or they see no text: {_short(left)}")
    if any(p.dim() == 3 and "expert" in name and "base_layer" not in name for name, p in model.named_parameters()):
        sentences.append("without an adapter: the routed experts, each layer's in one tensor")
    return tuple(sentences)


def _targets(model: Any, wanted: str) -> str | list[str]:
    """What PEFT is to adapt: its own word for all linear layers, names, or whole names where a name is ambiguous."""
    linear, head = _linear_layers(model), model.get_output_embeddings()
    can = {name: module for name, module in linear.items() if module is not head and _adaptable(model, name, module)}
    if wanted == _ALL_LINEAR:
        chosen = list(can)
        if len(can) == sum(module is not head for module in linear.values()):
            return _ALL_LINEAR
    elif wanted == _ATTENTION_TARGET:
        chosen = [name for name in can if _projects(model, name)]
        if not chosen:
            raise Unsupported(f"no attention projection of a known name to adapt; {_REMEDY}")
    else:
        words = wanted.split()
        chosen = [name for name in can if any(f".{name}".endswith(f".{word}") for word in words)]
        for word in words:
            if not any(f".{name}".endswith(f".{word}") for name in chosen):
                raise Unsupported(f"no layer called {word} that PEFT adapts; there are: {_short(can)}")
    if not chosen:
        raise Unsupported("no linear layer that PEFT adapts")
    # By their last names, if these name nothing else.
    leaves = list(dict.fromkeys(map(_leaf, chosen)))
    taken = sum(any(f".{name}".endswith(f".{leaf}") for leaf in leaves) for name, _ in model.named_modules())
    return leaves if taken == len(chosen) else chosen


def _linear_layers(model: Any) -> Named:
    """Linear layers (bitsandbytes' are subclasses) and GPT-2's Conv1D, by their whole names."""
    return {name: m for name, m in model.named_modules() if isinstance(m, (torch.nn.Linear, Conv1D))}


def _adaptable(model: Any, name: str, module: torch.nn.Module) -> bool:
    if model.config.model_type in _MAMBA and _last(name) in _AROUND:
        return False
    return not (_NO_TEXT.search(name) or _is_odd(module))


def _projects(model: Any, name: str) -> bool:
    """Whether the layer `name` is a projection of attention's."""
    # Some families wrap each projection: q_proj.linear.
    block, _, last = name.rpartition(".")
    if last == "linear":
        block, _, last = block.rpartition(".")
    if last not in _PROJECTIONS or _CHOOSING.search(block):
        return False
    return bool(_INSIDE_ATTENTION.search(block) or "Attention" in type(model.get_submodule(block)).__name__)


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _leaf(name: str) -> str:
    """The last part of a whole name; the last two of a projection's inner layer: "q_proj.linear"."""
    return ".".join(name.split(".")[-2:]) if _last(name) == "linear" else _last(name)


def _short(names: Any) -> str:
    return " ".join(dict.fromkeys(map(_leaf, names)))


def _is_odd(module: torch.nn.Module) -> bool:
    """Whether a linear layer has a forward of its own that does not give [..., out] for [..., in]."""
    kind = type(module)
    if not isinstance(module, torch.nn.Linear) or kind.forward is torch.nn.Linear.forward:
        return False
    if kind.__module__.startswith("bitsandbytes"):
        return False
    try:
        with torch.no_grad():
            out = module(module.weight.new_zeros(1, 1, module.in_features))
    except (RuntimeError, TypeError, ValueError, IndexError):
        return True
    return not isinstance(out, torch.Tensor) or out.shape != (1, 1, module.out_features)
