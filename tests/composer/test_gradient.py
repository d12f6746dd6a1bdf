from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from composer.adapter import LoraAdapter, LoraLayer
from composer.base_model import LoadedBase
from composer.blocks import split_into_blocks
from composer.errors import SearchError, Stopped, StorageFull
from composer.gradient import (
    STEP_EVALUATIONS,
    GradientSearch,
    GradientSettings,
    WeightedSum,
)
from composer.merging import merge_adapters
from composer.scoring import FloatArray, Scorer, encode_examples
from composer.search import Evaluation, finite_losses
from composer.stacking import AdapterStack
from tests.composer.tiny import ATTENTION, ROWS, T5_ATTENTION, make_adapter, max_difference

SETTINGS = GradientSettings(budget=1 + 8 * STEP_EVALUATIONS, learning_rate=0.2)


class FitRows:
    """The objective of a composition, of the same rows."""

    def __init__(self, base: LoadedBase, adapters: list[LoraAdapter]) -> None:
        self.scorer = Scorer(base, encode_examples(base, ROWS))
        self.stack = AdapterStack(base, adapters)

    def losses(self, weights: FloatArray) -> FloatArray:
        with self.stack:
            return finite_losses(self.scorer.losses(self.stack, weights).mean(axis=1))

    def answer_logits(self, weights: FloatArray):
        raise NotImplementedError


def pool_of(base: LoadedBase) -> list[LoraAdapter]:
    modules = T5_ATTENTION if base.is_seq2seq else ATTENTION
    return [
        make_adapter(base, f"own/{i}", seed=i, rank=2 + i, modules=modules[i:], size=0.1)
        for i in range(3)
    ]


def make_search(
    base: LoadedBase,
    settings: GradientSettings = SETTINGS,
    adapters: list[LoraAdapter] | None = None,
    **options,
) -> GradientSearch:
    adapters = pool_of(base) if adapters is None else adapters
    rows = encode_examples(base, ROWS)
    return GradientSearch(base, rows, adapters, FitRows(base, adapters), settings, **options)


def run(search: GradientSearch) -> list[Evaluation]:
    return list(search.evaluations())


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_it_works(kind: str, request: pytest.FixtureRequest) -> None:
    base: LoadedBase = request.getfixturevalue(kind)
    search = make_search(base)
    evaluations = run(search)
    assert evaluations[0].weights == (0, 0, 0)
    assert evaluations[1].fit_loss == pytest.approx(evaluations[0].fit_loss, rel=1e-5)
    assert search.best.loss < evaluations[1].loss - 0.01
    assert all(abs(w) <= SETTINGS.weight_bound for e in evaluations for w in e.weights)
    penalty = 0.05 * np.abs(search.best.weights).mean()
    assert search.best.loss == pytest.approx(search.best.fit_loss + penalty)
    last = FitRows(base, pool_of(base)).losses(np.array([search.best.weights]))
    assert search.best.fit_loss == pytest.approx(float(last[0]), rel=1e-4)


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_the_gradient_is_the_slope_of_the_loss(kind: str, request: pytest.FixtureRequest) -> None:
    base: LoadedBase = request.getfixturevalue(kind)
    at = np.array([0.5, -0.3, 0.2])
    _, slope = make_search(base)._differentiate(at)
    objective = FitRows(base, pool_of(base))
    step = 0.02 * np.eye(3)
    differences = (objective.losses(at + step) - objective.losses(at - step)) / 0.04
    assert slope == pytest.approx(differences, rel=0.05, abs=3e-3)


def test_every_step_counts_its_backward_pass(causal: LoadedBase) -> None:
    search = make_search(causal)
    numbers = [evaluation.number for evaluation in run(search)]
    steps = [1 + STEP_EVALUATIONS * i for i in range(9)]
    assert numbers == [0, *steps]
    assert search.steps == 8
    assert search.spent == SETTINGS.budget + 1


@pytest.mark.parametrize("budget", [1, 2, 3])
def test_a_budget_without_a_step_scores_the_start(budget: int, causal: LoadedBase) -> None:
    start = (1.0, 0.0, 9.0)
    search = make_search(causal, GradientSettings(budget=budget, start=start))
    assert [e.weights for e in run(search)] == [(0, 0, 0), (1, 0, 1.5)]
    assert (search.steps, search.spent) == (0, 2)


def test_the_same_search_gives_the_same_weights(causal: LoadedBase) -> None:
    assert run(make_search(causal)) == run(make_search(causal))


def test_many_rows_are_read_in_several_passes(causal: LoadedBase) -> None:
    whole = run(make_search(causal))
    parts = make_search(causal, replace(SETTINGS, batch_tokens=1))
    assert [len(batch) for batch in parts._batches] == [1] * len(ROWS)
    assert run(parts)[-1].loss == pytest.approx(whole[-1].loss, rel=1e-4)


def test_a_stopped_search_resumes_to_the_same_weights(causal: LoadedBase, tmp_path: Path) -> None:
    undisturbed = run(make_search(causal))
    path = tmp_path / "new" / "checkpoint.json"
    search = make_search(causal, checkpoint=path)
    search._should_stop = lambda: len(search.history) >= 5
    with pytest.raises(Stopped):
        run(search)
    assert len(json.loads(path.read_text())["steps"]) == 4
    resumed = make_search(causal, checkpoint=path)
    asked: list[int] = []
    resumed._should_stop = lambda: bool(asked.append(1))
    assert run(resumed) == undisturbed
    # The base alone, four steps, and where the last of them ends.
    assert len(asked) == 6


@pytest.mark.parametrize("change", ["other", "torn", "elsewhere"])
def test_the_checkpoint_of_another_search_counts_as_none(
    change: str, causal: LoadedBase, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.json"
    run(make_search(causal, checkpoint=path, fingerprint="one"))
    if change == "torn":
        path.write_text(path.read_text()[:-9])
    elif change == "elsewhere":
        data = json.loads(path.read_text())
        data["steps"][0]["weights"][0] = 1.0
        path.write_text(json.dumps(data))
    name = "two" if change == "other" else "one"
    resumed = run(make_search(causal, checkpoint=path, fingerprint=name))
    assert resumed == run(make_search(causal))


def test_a_checkpoint_that_cannot_be_written_is_said(causal: LoadedBase, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    search = make_search(causal, checkpoint=tmp_path / "file" / "checkpoint.json")
    with pytest.raises(StorageFull, match=r"checkpoint\.json cannot be written"):
        run(search)


def test_a_loss_that_is_no_number_ends_the_steps(causal: LoadedBase) -> None:
    broken = replace_factors(pool_of(causal)[0], float("nan"))
    search = make_search(causal, replace(SETTINGS, start=(1.0, 0.0)), [broken, pool_of(causal)[1]])
    evaluations = run(search)
    assert len(evaluations) == 2
    assert evaluations[1].fit_loss == 1e4
    assert search.best.number == 0


def replace_factors(adapter: LoraAdapter, value: float) -> LoraAdapter:
    layers = {
        path: LoraLayer(torch.full_like(layer.a, value), layer.b, layer.scaling)
        for path, layer in adapter.layers.items()
    }
    return replace(adapter, layers=layers)


def test_nothing_but_broken_numbers_is_an_error(causal: LoadedBase) -> None:
    search = make_search(causal, GradientSettings(budget=1))
    search._objective.losses = lambda weights: np.array([1e4])  # type: ignore[method-assign]
    with pytest.raises(SearchError, match="No weights gave a loss that is a number"):
        run(search)


def test_layers_that_no_row_goes_through_have_no_slope(causal: LoadedBase) -> None:
    still = LoraAdapter("still", {})
    loss, slope = make_search(causal, adapters=[still])._differentiate(np.array([1.0]))
    assert slope.tolist() == [0]
    assert loss == pytest.approx(run(make_search(causal))[0].fit_loss, rel=1e-5)


def test_blocks_share_the_layers_of_the_base(seq2seq: LoadedBase) -> None:
    table = {**seq2seq.module_table}
    pool = pool_of(seq2seq)
    parts = split_into_blocks(pool, table, 2)
    assert [part.name for part in parts] == [
        f"own/{i} [{block} of 2]" for block in (1, 2) for i in range(3)
    ]
    assert all(path.startswith("encoder.") for part in parts[:3] for path in part.layers)
    assert all(path.startswith("decoder.") for part in parts[3:] for path in part.layers)
    assert {*parts[0].layers, *parts[3].layers} == set(pool[0].layers)
    thirds = split_into_blocks(pool, table, 4)
    assert [len(thirds[3 * block].layers) for block in range(4)] == [2, 2, 2, 2]


def test_a_head_goes_with_the_last_block(causal: LoadedBase) -> None:
    adapter = make_adapter(causal, modules=(*ATTENTION, "lm_head"))
    first, last = split_into_blocks([adapter], causal.module_table, 2)
    assert set(first.layers) == set(ATTENTION[:2])
    assert set(last.layers) == {*ATTENTION[2:], "lm_head"}


@pytest.mark.parametrize("n_blocks", [0, 3])
def test_more_blocks_than_layers_are_refused(n_blocks: int, causal: LoadedBase) -> None:
    with pytest.raises(SearchError, match=f"1 to 2 blocks of them, not {n_blocks}"):
        split_into_blocks(pool_of(causal), causal.module_table, n_blocks)


def test_equal_weights_in_all_blocks_are_one_weight(causal: LoadedBase) -> None:
    pool, weights = pool_of(causal), (0.5, -1.0, 0.25)
    parts = split_into_blocks(pool, causal.module_table, 2)
    whole = merge_adapters(pool, weights, "concat").adapter
    by_block = merge_adapters(parts, weights * 2, "concat").adapter
    assert max_difference(whole, by_block) < 1e-6


def test_the_sum_is_that_of_the_adapters(causal: LoadedBase) -> None:
    pool = pool_of(causal)
    total = WeightedSum(causal, pool)
    total.weights = torch.tensor([0.5, -1.0, 0.25])
    merged = merge_adapters(pool, [0.5, -1.0, 0.25], "concat").adapter
    x = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(0))
    for path, layer in merged.layers.items():
        torch.testing.assert_close(total.updates[path](x), x @ layer.delta().T)


def test_the_slope_of_the_penalty_is_its_own() -> None:
    at, step = np.array([0.5, -0.25, 0.75]), 1e-6
    penalty, slope = SETTINGS.penalty(at)
    moved = [SETTINGS.penalty(at + step * axis)[0] for axis in np.eye(3)]
    assert slope == pytest.approx((np.array(moved) - penalty) / step, rel=1e-3)
