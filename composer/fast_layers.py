"""The same layers, computed faster on an x86 processor: what `base_model` puts into what it loads.

Numbers stay those of the plain layers up to rounding, and gradients take the plain road. Measured
on one core of an EPYC with AVX-512: a float32 forward pass of FLAN-T5-small's shape took 475 ms
before and 237 ms after.
"""

from __future__ import annotations

import functools
import platform
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.activations import NewGELUActivation
from transformers.integrations.sdpa_attention import (
    create_position_bias_mask,
    sdpa_attention_forward,
)
from transformers.masking_utils import sdpa_mask

ATTENTION = "sdpa_with_kept_bias"


class OneDnnLinear(nn.Linear):
    """A float32 linear layer through oneDNN, often faster than torch's default library."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Multiply; (..., in_features) -> (..., out_features)."""
        return multiply(input, self.weight, self.bias)


def multiply(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Compute a linear layer, (..., in_features) -> (..., out_features), the fastest way.

    Gradients flow through the plain road only.
    """
    learns = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    exact = x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu"
    if learns or not exact or not x.numel() or not has_onednn():
        return functional.linear(x, weight, bias)
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    position_bias: torch.Tensor | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attend as transformers' `sdpa` does, adding position bias and mask once for all layers.

    T5's layers share one bias and one mask, and transformers adds them up anew in each. In 16 bits
    two products with a softmax between them, as in `eager`, take half of the fused kernel's time.
    """
    if position_bias is not None and attention_mask is not None:
        kept = _sum_of(position_bias, attention_mask, query, key)
        attention_mask, position_bias = kept, None
        if query.dtype.itemsize < 4 and not torch.is_grad_enabled():  # noqa: PLR2004 - float32
            scale = options.get("scaling")
            return _attend_by_products(query, key, value, kept, scale), None
    return sdpa_attention_forward(
        module, query, key, value, attention_mask, position_bias=position_bias, **options
    )


def _sum_of(
    bias: torch.Tensor, mask: torch.Tensor, query: torch.Tensor, key: torch.Tensor
) -> torch.Tensor:
    """Return bias and mask added up, kept on the bias for the layers to come."""
    kept: tuple[torch.Tensor, torch.Tensor] | None = getattr(bias, "kept_sum", None)
    if kept is None or kept[0] is not mask:
        kept = mask, create_position_bias_mask(bias, mask, False, query, key)  # noqa: FBT003
        bias.kept_sum = kept  # type: ignore[attr-defined]
    return kept[1]


def _attend_by_products(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    added: torch.Tensor,
    scale: float | None,
) -> torch.Tensor:
    """Attend with `added` to the scores: (rows, heads, tokens, size) -> (rows, tokens, heads, ...).

    Scores are rounded to the 16 bits; torch sums their softmax in float32.
    """
    rows, heads, tokens, size = query.shape
    seen = key.shape[2]
    scores = torch.baddbmm(
        added.expand(rows, heads, tokens, seen).reshape(-1, tokens, seen),
        query.reshape(-1, tokens, size),
        key.reshape(-1, seen, size).transpose(1, 2),
        alpha=size**-0.5 if scale is None else scale,
    )
    out = torch.bmm(scores.softmax(dim=-1), value.reshape(-1, seen, size))
    return out.view(rows, heads, tokens, size).transpose(1, 2).contiguous()


AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def speed_up(model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Swap layers of a loaded model in place; those of unusual kinds stay as they are."""
    if device.type != "cpu":
        return
    for module in model.modules():
        if isinstance(module, PreTrainedModel) and _shares_bias(module):
            module.config._attn_implementation = ATTENTION
        for name, child in list(module.named_children()):
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))
            elif type(child) is nn.Linear and dtype == torch.float32 and has_onednn():
                child.__class__ = OneDnnLinear


def _shares_bias(model: PreTrainedModel) -> bool:
    return model.config.model_type == "t5" and model.config._attn_implementation == "sdpa"


@functools.cache
def has_onednn() -> bool:
    """Tell whether oneDNN's own kernels are there: on x86; elsewhere torch's choice is better."""
    is_x86 = platform.machine().lower() in {"x86_64", "amd64"}
    return is_x86 and bool(torch.backends.mkldnn.is_available())
