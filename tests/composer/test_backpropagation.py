from __future__ import annotations

import numpy as np
import pytest
import torch

from composer.backpropagation import hooked, mean_loss
from composer.base_model import LoadedBase
from composer.errors import BaseModelError, InsufficientMemory
from composer.scoring import Scorer, encode_examples
from composer.stacking import AdapterStack
from tests.composer.tiny import ATTENTION, ROWS, T5_ATTENTION, make_adapter


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
@pytest.mark.parametrize("count", [1, 8])
def test_the_loss_is_the_scorers(kind: str, count: int, request: pytest.FixtureRequest) -> None:
    base: LoadedBase = request.getfixturevalue(kind)
    modules = T5_ATTENTION if base.is_seq2seq else ATTENTION
    adapter = make_adapter(base, modules=modules, size=0.1)
    rows = encode_examples(base, ROWS[:count])
    with AdapterStack(base, [adapter]) as stack:
        wanted = Scorer(base, rows).losses(stack, np.ones((1, 1))).mean()
    updates = {
        path: lambda x, layer=layer: layer.scaling * x @ layer.a.T @ layer.b.T
        for path, layer in adapter.layers.items()
    }
    with hooked(base, updates):
        assert float(mean_loss(base, rows)) == pytest.approx(wanted, rel=1e-5)


def test_logits_that_are_scaled_take_the_long_way(causal: LoadedBase) -> None:
    from dataclasses import replace

    rows = encode_examples(causal, ROWS)
    short = float(mean_loss(causal, rows))
    assert float(mean_loss(replace(causal, head_is_linear=False), rows)) == pytest.approx(short)


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_gradients_are_the_slopes(kind: str, request: pytest.FixtureRequest) -> None:
    base: LoadedBase = request.getfixturevalue(kind)
    path = T5_ATTENTION[0] if base.is_seq2seq else ATTENTION[0]
    rows = encode_examples(base, ROWS)
    size = torch.zeros(1, requires_grad=True)
    direction = torch.randn(*reversed(base.module_table[path]), generator=_seeded()) * 0.1
    with hooked(base, {path: lambda x: x @ (size * direction).T}):
        mean_loss(base, rows).backward()
        with torch.no_grad():
            losses = []
            for step in (-1e-2, 1e-2):
                size.fill_(step)
                losses.append(float(mean_loss(base, rows)))
    assert float(size.grad) == pytest.approx((losses[1] - losses[0]) / 2e-2, rel=0.02, abs=1e-4)


def test_the_base_is_left_as_it_was(causal: LoadedBase) -> None:
    rows = encode_examples(causal, ROWS)
    before = float(mean_loss(causal, rows))
    with hooked(causal, {ATTENTION[0]: lambda x: x.sum() * torch.ones(32)}):
        assert float(mean_loss(causal, rows)) != before
    assert float(mean_loss(causal, rows)) == before
    assert not any(item.requires_grad for item in causal.model.parameters())


def test_a_layer_that_is_not_there_is_named(causal: LoadedBase) -> None:
    updates = {ATTENTION[0]: lambda x: x, "model.layers.9.q_proj": lambda x: x}
    with (
        pytest.raises(BaseModelError, match=r"no layer model\.layers\.9\.q_proj"),
        hooked(causal, updates),
    ):
        pytest.fail("nothing may run")
    assert not causal.model.get_submodule(ATTENTION[0])._forward_hooks


def test_too_little_memory_is_told(causal: LoadedBase) -> None:
    def greedy(x: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError

    rows = encode_examples(causal, ROWS)
    with (
        pytest.raises(InsufficientMemory, match="shorter or fewer rows"),
        hooked(causal, {ATTENTION[0]: greedy}),
    ):
        mean_loss(causal, rows)


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)
