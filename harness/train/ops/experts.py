"""Routed experts without storage: what a step computes when every expert gets as many tokens as any other.

On the meta device routing has no values, and transformers' own implementations look at them. This one has the products
of a balanced step, [experts, tokens per expert, width] each, so that FLOPs and bytes are counted as they run.
"""

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
    tokens, k = top_k_index.shape
    experts = len(self.down_proj)
    # Every token k times, in equal parts for the experts; what is missing to equal parts is padded.
    rows = hidden_states.repeat_interleave(k, 0)
    per_expert = -(-len(rows) // experts)
    rows = torch.nn.functional.pad(rows, (0, 0, 0, experts * per_expert - len(rows)))
    rows = rows.view(experts, per_expert, -1)
    up = self.gate_up_proj if self.has_gate else self.up_proj
    inner = torch.bmm(rows, up if self.is_transposed else up.transpose(1, 2))
    if self.has_bias:
        inner = inner + (self.gate_up_proj_bias if self.has_gate else self.up_proj_bias)[:, None]
    inner = self._apply_gate(inner) if self.has_gate else self.act_fn(inner)
    out = torch.bmm(inner, self.down_proj if self.is_transposed else self.down_proj.transpose(1, 2))
    if self.has_bias:
        out = out + self.down_proj_bias[:, None]
    if self.has_post_expert_norm:
        out = self.post_expert_norm(out)
    # The k outputs of a token are added up by the router's weights.
    out = out.view(experts * per_expert, -1)[: tokens * k] * top_k_weights.reshape(-1, 1)
    return out.view(tokens, k, -1).sum(1).to(hidden_states.dtype)


def use_balanced(model: Any) -> None:
    """Lets the routed experts of `model`, which has no storage, compute by `balanced`."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if base._can_set_experts_implementation():
        for module in base.modules():
            config = getattr(module, "config", None)
            if config is not None and hasattr(config, "_experts_implementation"):
                config._experts_implementation_internal = NAME


ALL_EXPERTS_FUNCTIONS.register(NAME, balanced)
