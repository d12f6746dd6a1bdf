from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from composer import selection
from composer.base_model import LoadedBase
from composer.errors import SearchError
from composer.examples import Example
from composer.scoring import Scorer, encode_examples
from composer.selection import PoolMember, keep_best, preselect, score_alone, similarities
from composer.stacking import AdapterStack
from tests.composer.tiny import ROWS, make_adapter

POOL = (
    PoolMember("own/translate_french", Path("a"), card_text="Translate English into French."),
    PoolMember("own/sort_numbers", Path("b"), card_text="Sort a list of numbers."),
    PoolMember("own/colours", Path("c"), samples=(Example("Say the colour of grass", "green"),)),
    PoolMember("own/plain", Path("d")),
)


def names(members: list[PoolMember]) -> list[str]:
    return [member.name.rpartition("/")[2] for member in members]


def test_it_works() -> None:
    chosen = preselect(POOL, ROWS, "similar", n_candidates=1, seed=0)
    assert names(chosen) == ["colours"]


def test_texts_alone_rank_the_pool() -> None:
    values = similarities(POOL, [Example("Sort these numbers: 3 1 2", "1 2 3")])
    assert int(np.argmax(values)) == 1
    assert ((values >= 0) & (values <= 1.000001)).all()


def test_a_small_pool_is_screened_whole() -> None:
    assert preselect(POOL, ROWS, "screened", n_candidates=2, seed=0) == list(POOL)
    assert preselect(POOL, ROWS, "all", n_candidates=2, seed=0) == list(POOL)


def test_a_large_pool_is_made_small_by_similarity_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "SCREENED_POOL", 2)
    chosen = preselect(POOL, ROWS, "screened", n_candidates=1, seed=0)
    assert len(chosen) == 2
    assert "colours" in names(chosen)


def test_random_follows_the_seed() -> None:
    def draw(seed: int) -> list[str]:
        return names(preselect(POOL, ROWS, "random", n_candidates=2, seed=seed))

    assert draw(1) == draw(1)
    assert len({tuple(draw(seed)) for seed in range(10)}) > 1
    assert len(preselect(POOL, ROWS, "random", n_candidates=9, seed=0)) == len(POOL)


def test_every_adapter_is_scored_alone(causal: LoadedBase, monkeypatch: pytest.MonkeyPatch) -> None:
    adapters = [make_adapter(causal, str(seed), seed=seed) for seed in range(5)]
    scorer = Scorer(causal, encode_examples(causal, ROWS))
    monkeypatch.setattr(selection, "STACKED_RANKS", 8)  # two adapters a stack
    heard: list[tuple[str, int]] = []
    losses = score_alone(
        causal, adapters, scorer, on_scored=lambda name, loss, done: heard.append((name, done))
    )
    assert heard == [(str(i), i + 1) for i in range(5)]
    for adapter in adapters:
        with AdapterStack(causal, [adapter]) as stack:
            expected = float(scorer.losses(stack, np.ones((1, 1))).mean())
        assert losses[adapter.name] == pytest.approx(expected, rel=1e-4)


def test_the_best_come_first_and_no_numbers_never(causal: LoadedBase) -> None:
    adapters = [make_adapter(causal, name) for name in "abcd"]
    losses = {"a": 2.0, "b": float("nan"), "c": 1.0, "d": float("inf")}
    assert [item.name for item in keep_best(adapters, losses, 3)] == ["c", "a"]
    with pytest.raises(SearchError, match="No adapter gave"):
        keep_best(adapters, dict.fromkeys("abcd", float("nan")), 2)
