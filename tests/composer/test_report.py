from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest
from scipy import stats

from composer.examples import Example, ExampleSplit
from composer.report import (
    Method,
    MethodResult,
    Metric,
    Report,
    bootstrap_interval,
    make_report,
    paired_p_value,
    score_rows,
    wilson_interval,
)


def split_of(n_fit: int, n_held_out: int) -> ExampleSplit:
    rows = tuple(Example(f"row {i}", "yes") for i in range(n_fit + n_held_out))
    return ExampleSplit(
        rows[:n_fit],
        rows[n_fit:],
        tuple(range(n_fit)),
        tuple(range(n_fit, n_fit + n_held_out)),
    )


def report_of(
    right: dict[Method, int],
    *,
    n_fit: int = 2,
    n_held_out: int = 20,
    metric: Metric = "exact_match",
) -> Report:
    """Let each method answer its first so many held-out rows, and all fit rows."""
    split = split_of(n_fit, n_held_out)
    results = {}
    for method, count in right.items():
        held_out = ["yes"] * count + ["no"] * (n_held_out - count)
        losses = None if method == "prompting" else (0.5,) * n_fit + (1 - count / 20,) * n_held_out
        results[method] = MethodResult(("yes",) * n_fit + tuple(held_out), losses)
    return make_report(split, results, {"composed": "Composed"}, metric=metric)


def test_it_works() -> None:
    report = report_of({"composed": 18, "base": 0, "best_single": 8, "uniform": 3})
    assert [row.method for row in report.rows] == ["base", "uniform", "best_single", "composed"]
    composed = report.rows[-1]
    assert composed.held_out is not None
    assert (composed.held_out.correct, composed.held_out.n) == (18, 20)
    assert composed.held_out.score == 0.9
    assert composed.held_out.loss == pytest.approx(0.1)
    assert report.verdict.headline == "Composing helped."
    assert report.verdict.winner == "composed"
    assert report.verdict.detail == (
        "It answers 18 of 20 held-out rows, the best single adapter 8, the base alone 0."
    )
    assert report.answers[2].correct["composed"]
    assert not report.answers[-1].correct["base"]
    json.dumps(report.to_dict())


@pytest.mark.parametrize(
    ("composed", "single", "base", "uniform", "headline"),
    [
        (20, 12, 0, 0, "Composing helped."),
        (20, 16, 0, 0, "Composing probably helped."),
        (20, 19, 0, 0, "No clear difference to the best single adapter."),
        (12, 20, 0, 0, "Composing did not help."),
        (16, 20, 0, 0, "Composing probably did not help."),
        (10, 10, 15, 0, "No better than the base model alone."),
        (10, 10, 0, 15, "No better than the plain mean of the adapters."),
    ],
)
def test_the_verdict_is_honest(
    composed: int, single: int, base: int, uniform: int, headline: str
) -> None:
    report = report_of(
        {"composed": composed, "best_single": single, "base": base, "uniform": uniform}
    )
    assert report.verdict.headline == headline


def test_prompting_can_win() -> None:
    report = report_of({"composed": 5, "best_single": 5, "base": 0, "prompting": 15})
    assert report.verdict.winner == "prompting"
    assert report.verdict.headline == "No better than prompting with the same rows."
    assert report.rows[1].held_out is not None
    assert report.rows[1].held_out.loss is None


def test_of_equal_scores_the_lower_loss_wins() -> None:
    split = split_of(0, 2)
    results: dict[Method, MethodResult] = {
        "base": MethodResult(("no", "no"), (3.0, 3.0)),
        "best_single": MethodResult(("yes", "yes"), (0.2, 0.2)),
        "composed": MethodResult(("yes", "yes"), (0.1, 0.1)),
    }
    assert make_report(split, results, {}, metric="exact_match").verdict.winner == "composed"


def test_few_rows_say_that_nothing_was_held_out() -> None:
    report = report_of({"composed": 0, "best_single": 0, "base": 0}, n_fit=4, n_held_out=0)
    assert report.verdict.headline == "Nothing was held out."
    assert report.verdict.p_value is None
    assert "six rows or more" in report.verdict.detail
    assert all(row.held_out is None for row in report.rows)


def test_long_answers_are_judged_by_rouge() -> None:
    report = report_of({"composed": 10, "best_single": 5, "base": 0}, metric="rougeL")
    composed = report.rows[-1].held_out
    assert composed is not None
    assert composed.correct is None
    assert composed.score == 0.5
    assert composed.interval[0] < 0.5 < composed.interval[1]
    assert "ROUGE-L on 20 held-out rows is 0.50" in report.verdict.detail


def test_rows_of_one_side_can_be_scored_alone() -> None:
    rows = [Example("a", "yes"), Example("b", "no")]
    score = score_rows(rows, MethodResult(("yes", "yes"), (1.0, 2.0)), "exact_match")
    assert (score.correct, score.n, score.loss) == (1, 2, 1.5)


def test_a_loss_that_is_no_number_is_left_out_and_never_wins() -> None:
    split = split_of(2, 2)
    results: dict[Method, MethodResult] = {
        "base": MethodResult(("yes",) * 4, (1.0,) * 4),
        "best_single": MethodResult(("yes",) * 4, (1.0, 1.0, math.inf, 1.0)),
        "composed": MethodResult(("yes",) * 4, (math.nan,) * 4),
    }
    report = make_report(split, results, {}, metric="exact_match")
    assert [row.held_out and row.held_out.loss for row in report.rows] == [1.0, None, None]
    assert report.rows[1].fit.loss == 1.0
    assert report.verdict.winner == "base"
    json.dumps(report.to_dict(), allow_nan=False)


@pytest.mark.parametrize(("correct", "n"), [(0, 48), (2, 48), (38, 48), (48, 48), (1, 1)])
def test_wilson_agrees_with_scipy(correct: int, n: int) -> None:
    expected = stats.binomtest(correct, n).proportion_ci(method="wilson")
    assert wilson_interval(correct, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize(("wins", "losses"), [(8, 2), (0, 5), (1, 0), (7, 7), (12, 1)])
def test_the_paired_test_agrees_with_scipy(wins: int, losses: int) -> None:
    first = [1.0] * wins + [0.0] * losses + [1.0] * 4
    second = [0.0] * wins + [1.0] * losses + [1.0] * 4
    expected = stats.binomtest(wins, wins + losses).pvalue
    assert paired_p_value(first, second) == pytest.approx(expected)
    assert paired_p_value(first, first) == 1.0


def test_the_bootstrap_is_repeatable_and_narrows() -> None:
    values = [0.0, 0.25, 0.5, 1.0]
    intervals = [bootstrap_interval(values * k) for k in (1, 4, 16)]
    assert intervals[0] == bootstrap_interval(values)
    widths = [high - low for low, high in intervals]
    assert all(wide > narrow for wide, narrow in pairwise(widths))
    assert bootstrap_interval([]) == (0.0, 1.0)
    assert wilson_interval(0, 0) == (0.0, 1.0)
