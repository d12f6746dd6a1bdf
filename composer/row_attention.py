"""Attention among rows packed into one sequence, without the pairs that the mask rules out.

A token of a row looks at the rows' common beginning and at its own row only. With five rows that is
a third of the pairs that attention over the whole sequence computes, with sixteen an eighth.
Numbers are those of transformers' `sdpa` up to rounding, which is that of its `eager` attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "sdpa_by_rows"
# What else transformers may hand to attention without changing what comes out of it here.
HARMLESS = {"is_causal", "position_ids", "use_cache", "sliding_window"}


@dataclass(frozen=True)
class RowLayout:
    """Where the rows of a packed sequence lie; a row shorter than the longest ends with repeats."""

    shared: int  # tokens of the common beginning
    n_rows: int
    longest: int
    own: torch.Tensor  # (rows * longest,): the place of each row's tokens in the sequence
    back: torch.Tensor  # (tokens - shared,): where each token lies among `own`
    later: torch.Tensor  # (longest, longest), bool: which tokens of its row a token cannot see yet


def mark_rows(mask: torch.Tensor, shared: int, lengths: Sequence[int]) -> None:
    """Say on a mask of packed rows where they lie: one after the other behind `shared` tokens."""
    mask.rows = _lay_out(shared, lengths, mask.device)  # type: ignore[attr-defined]


def _lay_out(shared: int, lengths: Sequence[int], device: torch.device) -> RowLayout:
    longest = max(lengths)
    within = torch.arange(longest)
    own, back, first = [], [], shared
    for number, length in enumerate(lengths):
        own.append(first + within.clamp(max=length - 1))
        back.append(number * longest + within[:length])
        first += length
    later = torch.ones(longest, longest, dtype=torch.bool).triu(1)
    return RowLayout(
        shared=shared,
        n_rows=len(lengths),
        longest=longest,
        own=torch.cat(own).to(device),
        back=torch.cat(back).to(device),
        later=later.to(device),
    )


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attend row by row where the mask is that of packed rows, else as transformers' `sdpa`.

    `query` is (vectors, heads, tokens, size), `key` and `value` may have fewer heads; what is
    returned is (vectors, tokens, heads, size).
    """
    layout: RowLayout | None = getattr(attention_mask, "rows", None)
    if layout is None or _asks_for_more(options) or query.shape[2] != key.shape[2]:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **options
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    rows = _among_rows(query, key, value, layout, scale)
    if not layout.shared:
        return rows, None
    beginning = functional.scaled_dot_product_attention(
        query[:, :, : layout.shared],
        key[:, :, : layout.shared],
        value[:, :, : layout.shared],
        is_causal=True,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return torch.cat([beginning.transpose(1, 2), rows], dim=1), None


def _asks_for_more(options: dict[str, Any]) -> bool:
    """Tell whether attention was asked for something that only transformers' own knows."""
    asked = (option for name, option in options.items() if name not in HARMLESS)
    return any(isinstance(option, torch.Tensor) or bool(option) for option in asked)


def _among_rows(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: RowLayout, scale: float
) -> torch.Tensor:
    """Return what the rows' own tokens see: (vectors, tokens - shared, heads, size)."""
    vectors, heads, _, size = query.shape
    shared, n, longest, few = layout.shared, layout.n_rows, layout.longest, key.shape[1]
    group = heads // few
    q = (query.index_select(2, layout.own) * scale).view(vectors, few, group, n, longest, size)
    # Every row's queries of one group of heads lie together: they meet the same keys.
    q = q.transpose(2, 3).reshape(vectors * few, n * group * longest, size)
    k, v = (
        item.index_select(2, layout.own).view(vectors * few * n, longest, size)
        for item in (key, value)
    )
    begun_k, begun_v = (
        item[:, :, :shared].reshape(vectors * few, shared, size) for item in (key, value)
    )
    own = q.view(len(k), group * longest, size) @ k.transpose(1, 2)
    own = own.view(-1, longest, longest).masked_fill_(layout.later, -torch.inf)
    scores = torch.cat([(q @ begun_k.transpose(1, 2)).view(len(own), longest, shared), own], dim=-1)
    seen = scores.softmax(dim=-1)  # torch sums it in float32
    out = seen[..., shared:].reshape(len(k), group * longest, longest) @ v
    out = out.view_as(q).baddbmm_(seen[..., :shared].reshape(*q.shape[:2], shared), begun_v)
    out = out.view(vectors, few, n, group, longest, size).permute(0, 2, 4, 1, 3, 5)
    return out.reshape(vectors, n * longest, heads, size).index_select(1, layout.back)


AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def attend_by_rows(model: PreTrainedModel) -> None:
    """Let a model that keeps packed rows apart attend row by row, if it attends through `sdpa`."""
    if model.config._attn_implementation == "sdpa":
        model.config._attn_implementation = ATTENTION
