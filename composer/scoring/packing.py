"""Rows of one task in one sequence: their common beginning once, then what is left of each.

Nothing is padded and the beginning is read once. A mask keeps the rows apart and each row's
positions go on where the beginning ended, so that a causal model computes the numbers it would
compute for the rows alone. `LoadedBase.packs_rows` tells whether it does. The mask also says where
the rows lie, for `row_attention`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from composer.base_model import LoadedBase
from composer.row_attention import mark_rows
from composer.scoring.encoding import EncodedExample

# Longer sequences win no time.
PACK_TOKENS = 1024


@dataclass(frozen=True)
class Pack:
    """One sequence of rows; `place`, `wanted` and `row` have one entry an answer token."""

    ids: torch.Tensor  # (1, tokens)
    positions: torch.Tensor  # (1, tokens)
    mask: torch.Tensor | None  # (1, 1, tokens, tokens), to be added; None for one row alone
    place: torch.Tensor  # (answers,): where in the sequence it is predicted
    wanted: torch.Tensor  # (answers,): the token itself
    row: torch.Tensor  # (answers,): the number of its row in the pack


def pack_rows(examples: Sequence[EncodedExample], shared: int, base: LoadedBase) -> Pack:
    """Pack rows that begin with the same `shared` tokens (0: with none)."""
    ids = list(examples[0].prompt[:shared])
    positions, owner = list(range(shared)), [-1] * shared
    place, wanted, row, lengths = list[int](), list[int](), list[int](), list[int]()
    for number, item in enumerate(examples):
        first = len(ids) + len(item.prompt) - 1 - shared
        place += range(first, first + len(item.answer))
        wanted += item.answer
        row += [number] * len(item.answer)
        # The end token of the answer is predicted, never read.
        own = (*item.prompt, *item.answer)[shared:-1]
        ids += own
        positions += range(shared, shared + len(own))
        owner += [number] * len(own)
        lengths.append(len(own))
    owners = torch.tensor(owner)
    sees = (owners[:, None] == owners) | (owners == -1)
    sees &= torch.ones_like(sees).tril()
    mask = torch.zeros(sees.shape, dtype=base.dtype)
    mask.masked_fill_(~sees, torch.finfo(base.dtype).min)
    device = base.device
    mask = mask[None, None].to(device)
    mark_rows(mask, shared, lengths)
    return Pack(
        ids=torch.tensor([ids], device=device),
        positions=torch.tensor([positions], device=device),
        mask=mask if len(examples) > 1 else None,
        place=torch.tensor(place, device=device),
        wanted=torch.tensor(wanted, device=device),
        row=torch.tensor(row, device=device),
    )


def cut_packs(order: Sequence[int], lengths: Sequence[int], shared: int) -> Iterator[list[int]]:
    """Cut rows into packs of at most `PACK_TOKENS` and of about equal length.

    `lengths` are the rows' own, in `order`; a row that is longer makes a pack of its own.
    """
    total = sum(length - shared for length in lengths)
    count = max(1, -(-total // (PACK_TOKENS - min(shared, PACK_TOKENS // 2))))
    limit, pack, size = total / count, list[int](), 0
    for i, length in zip(order, lengths, strict=True):
        own = length - shared
        if pack and size + own / 2 > limit:
            yield pack
            pack, size = [], 0
        pack.append(i)
        size += own
    if pack:
        yield pack
