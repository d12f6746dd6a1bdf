"""Attention row by row beside attention over the whole packed sequence with its mask."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from composer.row_attention import attend, mark_rows

SIZE = 8


def packed_mask(shared: int, lengths: list[int]) -> torch.Tensor:
    owner = torch.tensor([-1] * shared + [i for i, n in enumerate(lengths) for _ in range(n)])
    sees = (owner[:, None] == owner) | (owner == -1)
    sees &= torch.ones_like(sees).tril()
    mask = torch.zeros(sees.shape).masked_fill_(~sees, torch.finfo(torch.float32).min)
    return mask[None, None]


def states(vectors: int, heads: int, few: int, tokens: int) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(vectors, tokens, n, SIZE).transpose(1, 2) for n in (heads, few, few)]


def run(heads: int, few: int, qkv: list[torch.Tensor], mask: torch.Tensor, **options: object):
    module = SimpleNamespace(num_key_value_groups=heads // few, is_causal=True)
    return attend(module, *qkv, mask, **options)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(("heads", "few"), [(4, 4), (6, 2)])
@pytest.mark.parametrize("vectors", [1, 3])
@pytest.mark.parametrize(
    ("shared", "lengths"), [(7, [5, 5, 5]), (1, [2, 9]), (0, [3, 1, 4]), (12, [1, 1]), (3, [6])]
)
def test_it_works(shared: int, lengths: list[int], vectors: int, heads: int, few: int) -> None:
    mask = packed_mask(shared, lengths)
    qkv = states(vectors, heads, few, mask.shape[-1])
    whole = run(heads, few, qkv, mask, scaling=0.3)
    mark_rows(mask, shared, lengths)
    by_rows = run(heads, few, qkv, mask, scaling=0.3)
    assert by_rows.shape == whole.shape == (vectors, mask.shape[-1], heads, SIZE)
    torch.testing.assert_close(by_rows, whole)


def test_the_scale_is_that_of_the_size_when_none_is_given() -> None:
    mask = packed_mask(4, [3, 2])
    qkv = states(1, 2, 2, mask.shape[-1])
    mark_rows(mask, 4, [3, 2])
    torch.testing.assert_close(run(2, 2, qkv, mask), run(2, 2, qkv, mask, scaling=SIZE**-0.5))


def test_what_it_does_not_know_is_left_to_transformers() -> None:
    """A position bias changes the scores: it must not be lost."""
    mask = packed_mask(4, [3, 2])
    tokens = mask.shape[-1]
    qkv = states(1, 2, 2, tokens)
    bias = torch.randn(1, 2, tokens, tokens)
    whole = run(2, 2, qkv, mask, position_bias=bias)
    mark_rows(mask, 4, [3, 2])
    torch.testing.assert_close(run(2, 2, qkv, mask, position_bias=bias), whole)
    assert not torch.allclose(run(2, 2, qkv, mask), whole)


def test_gradients_flow_through_it() -> None:
    mask = packed_mask(4, [3, 2])
    whole, by_rows = states(1, 4, 2, mask.shape[-1]), states(1, 4, 2, mask.shape[-1])
    for tensor in [*whole, *by_rows]:
        tensor.requires_grad_()
    run(4, 2, whole, mask).square().sum().backward()
    mark_rows(mask, 4, [3, 2])
    run(4, 2, by_rows, mask).square().sum().backward()
    for one, other in zip(whole, by_rows, strict=True):
        torch.testing.assert_close(one.grad, other.grad)
