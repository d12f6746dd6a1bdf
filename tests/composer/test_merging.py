from __future__ import annotations

import math
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from composer.adapter import LoraAdapter, LoraLayer
from composer.base_model import LoadedBase
from composer.errors import IncompatibleAdapters
from composer.merging import MergeMethod, merge_adapters, svd
from tests.composer.tiny import ATTENTION, make_adapter, max_difference

METHODS: tuple[MergeMethod, ...] = ("factor", "concat", "svd")
SIZES = {"m.q_proj": (6, 5), "m.v_proj": (4, 7), "m.up_proj": (5, 9)}  # in and out features
FULL_RANK = 40


def mixed(causal: LoadedBase) -> list[LoraAdapter]:
    """Three adapters of other ranks, scalings and modules."""
    return [
        make_adapter(causal, "a", seed=1, rank=4),
        make_adapter(causal, "b", seed=2, rank=2, scaling=0.5),
        make_adapter(causal, "c", seed=3, rank=3, modules=ATTENTION[1:3], scaling=4.0),
    ]


@st.composite
def pools(draw: st.DrawFn, *, equal: bool = False, most: int = 4) -> list[LoraAdapter]:
    """Adapters of any rank, scaling and modules a layer; `equal`: the same in all, for factor."""
    count = draw(st.integers(1, most))
    one_shape = draw(_shapes())
    adapters = []
    for i in range(count):
        random = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
        layers = {}
        for path, (rank, scaling) in (one_shape if equal else draw(_shapes())).items():
            wide, high = SIZES[path]
            layers[path] = LoraLayer(
                torch.randn(rank, wide, generator=random),
                torch.randn(high, rank, generator=random),
                scaling,
            )
        adapters.append(LoraAdapter(str(i), layers))
    return adapters


def _shapes() -> st.SearchStrategy[dict[str, tuple[int, float]]]:
    ranks, scalings = st.integers(1, 4), st.sampled_from([0.25, 1.0, 2.0, 4 / math.sqrt(3)])
    return st.dictionaries(st.sampled_from(sorted(SIZES)), st.tuples(ranks, scalings), min_size=1)


def weights_for(adapters: list[LoraAdapter], seed: int) -> list[float]:
    """Weights within the bounds of a search, some of them zero."""
    random = torch.Generator().manual_seed(seed)
    drawn = (torch.rand(len(adapters), generator=random) * 3 - 1.5).tolist()
    return [0.0 if abs(weight) < 0.3 else weight for weight in drawn]


def delta_sum(adapters: list[LoraAdapter], weights: list[float], path: str) -> torch.Tensor:
    wide, high = SIZES[path]
    total = torch.zeros(high, wide)
    for adapter, weight in zip(adapters, weights, strict=True):
        if path in adapter.layers:
            total += weight * adapter.layers[path].delta()
    return total


quick = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 1000)


@quick
@given(adapters=pools(), method=st.sampled_from(["concat", "svd"]), place=seeds)
def test_one_weight_of_one_gives_that_adapter(
    adapters: list[LoraAdapter], method: MergeMethod, place: int
) -> None:
    chosen = place % len(adapters)
    weights = [float(i == chosen) for i in range(len(adapters))]
    merged = merge_adapters(adapters, weights, method)
    assert max_difference(merged.adapter, adapters[chosen]) < 1e-5
    assert merged.svd_error == (None if method == "concat" else pytest.approx(0, abs=1e-6))


@quick
@given(adapters=pools(equal=True), place=seeds)
def test_one_weight_of_one_gives_that_adapter_by_factor(
    adapters: list[LoraAdapter], place: int
) -> None:
    chosen = place % len(adapters)
    weights = [float(i == chosen) for i in range(len(adapters))]
    merged = merge_adapters(adapters, weights, "factor").adapter
    assert max_difference(merged, adapters[chosen]) < 1e-5


@quick
@given(adapters=pools(), seed=seeds, order=st.randoms(use_true_random=False))
def test_no_order_matters(adapters: list[LoraAdapter], seed: int, order: Random) -> None:
    weights = weights_for(adapters, seed)
    shuffled = list(zip(adapters, weights, strict=True))
    order.shuffle(shuffled)
    others, their = [list(part) for part in zip(*shuffled, strict=True)]
    for method in ("concat", "svd"):
        first = merge_adapters(adapters, weights, method, svd_rank=FULL_RANK).adapter
        second = merge_adapters(others, their, method, svd_rank=FULL_RANK).adapter
        assert max_difference(first, second) < 1e-4


@quick
@given(adapters=pools(equal=True), seed=seeds, order=st.randoms(use_true_random=False))
def test_no_order_matters_to_factor(adapters: list[LoraAdapter], seed: int, order: Random) -> None:
    weights = weights_for(adapters, seed)
    shuffled = list(zip(adapters, weights, strict=True))
    order.shuffle(shuffled)
    others, their = [list(part) for part in zip(*shuffled, strict=True)]
    first = merge_adapters(adapters, weights, "factor").adapter
    second = merge_adapters(others, their, "factor").adapter
    assert max_difference(first, second) < 1e-4


@quick
@given(adapters=pools(), seed=seeds)
def test_concat_is_the_sum_of_deltas_and_svd_of_full_rank_is_concat(
    adapters: list[LoraAdapter], seed: int
) -> None:
    weights = weights_for(adapters, seed)
    exact = merge_adapters(adapters, weights, "concat").adapter
    full = merge_adapters(adapters, weights, "svd", svd_rank=FULL_RANK)
    assert full.svd_error == pytest.approx(0, abs=1e-6)
    for path in SIZES:
        expected = delta_sum(adapters, weights, path)
        for merged in (exact, full.adapter):
            if path in merged.layers:
                assert torch.allclose(merged.layers[path].delta(), expected, atol=1e-5, rtol=1e-5)
            else:
                assert not expected.any()


@quick
@given(adapters=pools(), seed=seeds, rank=st.integers(1, 6))
def test_the_error_reported_is_measured_and_no_rank_does_better(
    adapters: list[LoraAdapter], seed: int, rank: int
) -> None:
    weights = weights_for(adapters, seed)
    exact = merge_adapters(adapters, weights, "concat").adapter
    cut = merge_adapters(adapters, weights, "svd", svd_rank=rank)
    lost = total = best = 0.0
    for path, layer in exact.layers.items():
        delta = layer.delta().double()
        lost += float((delta - cut.adapter.layers[path].delta().double()).square().sum())
        total += float(delta.square().sum())
        best += float(torch.linalg.svdvals(delta)[rank:].square().sum())
    measured = math.sqrt(lost / total) if total else 0.0
    assert cut.svd_error == pytest.approx(measured, abs=1e-5)
    assert lost == pytest.approx(best, abs=1e-6 * max(total, 1))


@quick
@given(adapters=pools(), seed=seeds)
def test_adapters_of_zero_weight_leave_no_trace(adapters: list[LoraAdapter], seed: int) -> None:
    weights = weights_for(adapters, seed)
    kept = [(item, w) for item, w in zip(adapters, weights, strict=True) if w]
    if not kept:
        return
    items, theirs = [list(part) for part in zip(*kept, strict=True)]
    for method in ("concat", "svd"):
        whole = merge_adapters(adapters, weights, method).adapter
        alone = merge_adapters(items, theirs, method).adapter
        assert {p: layer.rank for p, layer in whole.layers.items()} == {
            p: layer.rank for p, layer in alone.layers.items()
        }
        assert max_difference(whole, alone) == 0


@pytest.mark.parametrize("method", METHODS)
def test_it_works(causal: LoadedBase, method: MergeMethod) -> None:
    adapters = [make_adapter(causal, str(seed), seed=seed) for seed in (1, 2)]
    merged = merge_adapters(adapters, (1.0, 0.0), method)
    assert max_difference(merged.adapter, adapters[0]) < 1e-5
    assert merged.adapter.task_type == "CAUSAL_LM"


@settings(deadline=None, max_examples=25)
@given(weights=st.lists(st.floats(-1.5, 1.5), min_size=3, max_size=3))
def test_concat_is_the_weighted_sum_of_updates(weights: list[float]) -> None:
    random = torch.Generator().manual_seed(7)
    adapters = [
        LoraAdapter(
            str(rank),
            {
                "m": LoraLayer(
                    torch.randn(rank, 6, generator=random),
                    torch.randn(5, rank, generator=random),
                    1 / math.sqrt(rank),
                )
            },
        )
        for rank in (1, 2, 4)
    ]
    merged = merge_adapters(adapters, weights, "concat").adapter
    expected = sum(w * item.layers["m"].delta() for w, item in zip(weights, adapters, strict=True))
    assert torch.allclose(merged.layers["m"].delta(), torch.as_tensor(expected), atol=1e-5)


def test_concat_counts_missing_modules_as_zero(causal: LoadedBase) -> None:
    adapters = mixed(causal)
    merged = merge_adapters(adapters, (0.5, -1.0, 0.25), "concat").adapter
    first, second = ATTENTION[0], ATTENTION[1]
    a, b, c = adapters
    assert torch.allclose(
        merged.layers[first].delta(),
        0.5 * a.layers[first].delta() - b.layers[first].delta(),
        atol=1e-5,
    )
    assert torch.allclose(
        merged.layers[second].delta(),
        0.5 * a.layers[second].delta() - b.layers[second].delta() + 0.25 * c.layers[second].delta(),
        atol=1e-5,
    )
    assert merged.layers[first].rank == 6
    assert merged.layers[second].rank == 9


@pytest.mark.parametrize("method", METHODS)
def test_order_does_not_matter(causal: LoadedBase, method: MergeMethod) -> None:
    adapters = [make_adapter(causal, str(seed), seed=seed) for seed in range(3)]
    weights = (0.3, -0.8, 1.2)
    forward = merge_adapters(adapters, weights, method).adapter
    backward = merge_adapters(adapters[::-1], weights[::-1], method).adapter
    assert max_difference(forward, backward) < 1e-5


def test_zero_weights_are_dropped(causal: LoadedBase) -> None:
    merged = merge_adapters(mixed(causal), (1.0, 0.0, 0.0), "concat").adapter
    assert {layer.rank for layer in merged.layers.values()} == {4}


@pytest.mark.parametrize("method", METHODS)
def test_weights_that_are_all_zero_change_nothing(causal: LoadedBase, method: MergeMethod) -> None:
    merged = merge_adapters([make_adapter(causal)], (0.0,), method).adapter
    assert set(merged.layers) == set(ATTENTION)
    assert all(not layer.delta().any() for layer in merged.layers.values())


def test_svd_of_full_rank_equals_concat(causal: LoadedBase) -> None:
    adapters, weights = mixed(causal), (0.7, -0.4, 0.1)
    exact = merge_adapters(adapters, weights, "concat").adapter
    merged = merge_adapters(adapters, weights, "svd", svd_rank=9)
    assert merged.svd_error == pytest.approx(0, abs=1e-6)
    assert max_difference(exact, merged.adapter) < 1e-5


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_the_error_reported_is_the_error_measured(causal: LoadedBase, rank: int) -> None:
    adapters, weights = mixed(causal), (0.7, -0.4, 0.9)
    exact = merge_adapters(adapters, weights, "concat").adapter
    merged = merge_adapters(adapters, weights, "svd", svd_rank=rank)
    gaps = [exact.layers[p].delta() - merged.adapter.layers[p].delta() for p in exact.layers]
    lost = sum(float(gap.square().sum()) for gap in gaps)
    total = sum(float(layer.delta().square().sum()) for layer in exact.layers.values())
    assert merged.svd_error == pytest.approx(math.sqrt(lost / total), rel=1e-3)
    assert max(layer.rank for layer in merged.adapter.layers.values()) == rank


def test_svd_is_the_best_approximation_of_its_rank() -> None:
    torch.manual_seed(0)
    layer = LoraLayer(torch.randn(6, 9), torch.randn(8, 6), 0.5)
    cut, lost, _ = svd(layer, 2)
    values = torch.linalg.svdvals(layer.delta())
    assert lost == pytest.approx(float(values[2:].square().sum()), rel=1e-4)
    assert float((layer.delta() - cut.delta()).square().sum()) == pytest.approx(lost, rel=1e-3)


def test_svd_rank_defaults_to_the_largest_rank(causal: LoadedBase) -> None:
    merged = merge_adapters(mixed(causal), (1.0, 1.0, 1.0), "svd").adapter
    assert max(layer.rank for layer in merged.layers.values()) == 4


def test_factor_is_the_original_formula(causal: LoadedBase) -> None:
    first, second = (make_adapter(causal, str(seed), seed=seed) for seed in (1, 2))
    merged = merge_adapters([first, second], (0.5, -0.25), "factor").adapter
    for path, layer in merged.layers.items():
        one, two = first.layers[path], second.layers[path]
        expected = 2.0 * (0.5 * one.b - 0.25 * two.b) @ (0.5 * one.a - 0.25 * two.a)
        assert torch.allclose(layer.delta(), expected, atol=1e-5)


def test_factor_cannot_see_a_sign(causal: LoadedBase) -> None:
    adapters = [make_adapter(causal, str(seed), seed=seed) for seed in (1, 2)]
    plus = merge_adapters(adapters, (0.5, -0.3), "factor").adapter
    minus = merge_adapters(adapters, (-0.5, 0.3), "factor").adapter
    assert max_difference(plus, minus) < 1e-6


def test_factor_refuses_unequal_ranks(causal: LoadedBase) -> None:
    with pytest.raises(IncompatibleAdapters, match="b, c differ from a"):
        merge_adapters(mixed(causal), (1.0, 0.0, 0.0), "factor")
