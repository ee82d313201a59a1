"""Routed experts without storage: what a step computes when every expert gets as many tokens as any other.

On the meta device routing has no values, and transformers' own implementations look at them. This one has the products
of a balanced step, [experts, tokens per expert, width] each, so that FLOPs and bytes are counted as they run.
"""

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

NAME = "balanced"


def balanced(
    self: Any, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
) -> torch.Tensor:
    """The experts' output [tokens, width] for `hidden_states` [tokens, width], each token at its k experts.

    The interface is that of transformers' experts functions.
    """

    def outputs(rows: torch.Tensor) -> torch.Tensor:
        up = self.gate_up_proj if self.has_gate else self.up_proj
        inner = torch.bmm(rows, up if self.is_transposed else up.transpose(1, 2))
        if self.has_bias:
            inner = inner + (self.gate_up_proj_bias if self.has_gate else self.up_proj_bias)[:, None]
        inner = self._apply_gate(inner) if self.has_gate else self.act_fn(inner)
        out = torch.bmm(inner, self.down_proj if self.is_transposed else self.down_proj.transpose(1, 2))
        if self.has_bias:
            out = out + self.down_proj_bias[:, None]
        return self.post_expert_norm(out) if self.has_post_expert_norm else out

    return _routed(hidden_states, top_k_weights, len(self.down_proj), len(self.down_proj), outputs)


def _routed(
    hidden_states: torch.Tensor, top_k_weights: torch.Tensor, experts: int, choices: int, outputs: Callable
) -> torch.Tensor:
    """[tokens, width], where `outputs` is the experts' own function on [experts, tokens per expert, width].

    A token chooses among `choices`; those beyond `experts` give it back as it is.
    """
    # Every token k times, in equal parts for the choices; what is missing to equal parts is padded.
    tokens, k = top_k_weights.shape
    rows = hidden_states.repeat_interleave(k, 0)
    per_choice = -(-len(rows) // choices)
    rows = torch.nn.functional.pad(rows, (0, 0, 0, choices * per_choice - len(rows)))
    rows = rows.view(choices, per_choice, -1)
    out = outputs(rows[:experts])
    if experts < choices:
        out = torch.cat([out, rows[experts:]])
    # The k outputs of a token are added up by the router's weights.
    out = out.view(choices * per_choice, -1)[: tokens * k] * top_k_weights.reshape(-1, 1)
    return out.view(tokens, k, -1).sum(1).to(hidden_states.dtype)


# Experts that do not ask transformers' interface.
def _with_idle_ones(self: Any, hidden_states: torch.Tensor, _: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """LongCat's: some choices compute nothing."""

    def outputs(rows: torch.Tensor) -> torch.Tensor:
        gate, up = torch.bmm(rows, self.gate_up_proj[: len(rows)].transpose(1, 2)).chunk(2, -1)
        return torch.bmm(self.act_fn(gate) * up, self.down_proj.transpose(1, 2))

    return _routed(hidden_states, weights, self.num_routed_experts, self.total_experts, outputs)


def _flattened(self: Any, hidden_states: torch.Tensor, _: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """DBRX's: the matrices of all experts stand one below the other."""
    w1, v1, w2 = (part.view(self.num_experts, -1, self.hidden_size) for part in (self.mlp.w1, self.mlp.v1, self.mlp.w2))

    def outputs(rows: torch.Tensor) -> torch.Tensor:
        gate, up = torch.bmm(rows, w1.transpose(1, 2)), torch.bmm(rows, v1.transpose(1, 2))
        return torch.bmm(self.mlp.activation_fn(gate) * up, w2)

    flat = hidden_states.reshape(-1, self.hidden_size)
    return _routed(flat, weights, self.num_experts, self.num_experts, outputs).view(hidden_states.shape)


def _sorted_tokens(self: Any, hidden_states: torch.Tensor) -> tuple:
    """JetMoE's router: the tokens in the order of their experts, and how many each expert gets."""
    logits = self.layer(hidden_states).float()
    top, experts = logits.topk(self.top_k, dim=1)
    weights = torch.softmax(top, dim=1).type_as(hidden_states).flatten()
    _, order = experts.flatten().sort(0)
    share, more = divmod(len(order), self.num_experts)
    sizes = [share + (i < more) for i in range(self.num_experts)]
    return order, order.div(self.top_k, rounding_mode="trunc"), weights[order], sizes, logits


_OWN_ROUTING = {
    "LongcatFlashExperts": _with_idle_ones,
    "DbrxExperts": _flattened,
    "JetMoeTopKGating": _sorted_tokens,
}


def use_balanced(model: Any) -> None:
    """Lets the routed experts of `model`, which has no storage, compute by `balanced`."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    for module in base.modules():
        if forward := _OWN_ROUTING.get(type(module).__name__):
            module.forward = MethodType(forward, module)
    if base._can_set_experts_implementation():
        for module in base.modules():
            config = getattr(module, "config", None)
            if config is not None and hasattr(config, "_experts_implementation"):
                config._experts_implementation_internal = NAME


ALL_EXPERTS_FUNCTIONS.register(NAME, balanced)
