from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from composer.intervals import (
    bootstrap_interval,
    loss_interval,
    paired_p_value,
    share_interval,
    wilson_interval,
)


def test_it_works() -> None:
    values = [1.0] * 30 + [0.0] * 10
    (low, high), kind = share_interval(values)
    assert kind == "bootstrap"
    # The exact bootstrap distribution of a share is the binomial one.
    assert low == pytest.approx(stats.binom.ppf(0.025, 40, 0.75) / 40, abs=0.03)
    assert high == pytest.approx(stats.binom.ppf(0.975, 40, 0.75) / 40, abs=0.03)


@pytest.mark.parametrize("share", [0.0, 1.0, 0.4])
@pytest.mark.parametrize("n", [1, 3, 20])
def test_where_all_rows_are_alike_the_interval_is_no_point(share: float, n: int) -> None:
    (low, high), kind = share_interval([share] * n)
    assert kind == "wilson"
    assert (low, high) == pytest.approx(wilson_interval(share * n, n))
    assert high - low > 0.1
    assert share_interval([]) == ((0.0, 1.0), "wilson")


def test_the_bootstrap_is_repeatable_and_narrows() -> None:
    values = [0.0, 0.25, 0.5, 1.0]
    intervals = [bootstrap_interval(values * k) for k in (1, 4, 16)]
    assert intervals[0] == bootstrap_interval(values)
    widths = [high - low for low, high in intervals]
    assert all(wide > narrow for wide, narrow in pairwise(widths))


def test_the_bootstrap_agrees_with_scipy() -> None:
    losses = np.random.default_rng(3).gamma(2.0, size=60)
    theirs = stats.bootstrap((losses,), np.mean, method="percentile", rng=1).confidence_interval
    assert bootstrap_interval(list(losses)) == pytest.approx((theirs.low, theirs.high), abs=0.06)


@pytest.mark.parametrize("losses", [[], [1.0], [1.0, math.nan], [math.inf, 2.0]])
def test_a_loss_without_spread_or_number_has_no_interval(losses: list[float]) -> None:
    assert loss_interval(losses) is None
    assert loss_interval([1.0, 2.0]) is not None


@pytest.mark.parametrize(("correct", "n"), [(0, 48), (2, 48), (38, 48), (48, 48), (1, 1)])
def test_wilson_agrees_with_scipy(correct: int, n: int) -> None:
    expected = stats.binomtest(correct, n).proportion_ci(method="wilson")
    assert wilson_interval(correct, n) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("wins", "losses"), [(8, 2), (0, 5), (1, 0), (7, 7), (12, 1)])
def test_the_paired_test_agrees_with_scipy(wins: int, losses: int) -> None:
    first = [1.0] * wins + [0.0] * losses + [1.0] * 4
    second = [0.0] * wins + [1.0] * losses + [1.0] * 4
    expected = stats.binomtest(wins, wins + losses).pvalue
    assert paired_p_value(first, second) == pytest.approx(expected)
    assert paired_p_value(first, first) == 1.0
