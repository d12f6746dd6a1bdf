from __future__ import annotations

import json
import math

import pytest

from composer.examples import Example, ExampleSplit
from composer.report import (
    CrossValidation,
    Method,
    MethodResult,
    Metric,
    Report,
    make_report,
    score_rows,
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
    one = report_of({"composed": 0, "best_single": 0, "base": 0}, n_fit=1, n_held_out=0)
    assert one.verdict.detail.startswith("The only row was used to choose the weights")
    many = report_of({"composed": 0, "best_single": 0, "base": 0}, n_fit=9, n_held_out=0)
    assert "Fit on fewer of them" in many.verdict.detail


def test_long_answers_are_judged_by_rouge() -> None:
    report = report_of({"composed": 10, "best_single": 5, "base": 0}, metric="rougeL")
    composed = report.rows[-1].held_out
    assert composed is not None
    assert composed.correct is None
    assert composed.score == 0.5
    assert composed.interval[0] < 0.5 < composed.interval[1]
    assert "ROUGE-L on 20 held-out rows is 0.50" in report.verdict.detail
    # Exact match stands beside it.
    assert (composed.exact, composed.rouge_l) == (10, 0.5)


def test_long_answers_show_rouge_beside_exact_match_whichever_is_the_metric() -> None:
    answer = "the cat sat down on the warm mat"
    rows = tuple(Example(f"row {i}", answer) for i in range(4))
    split = ExampleSplit((), rows, (), (0, 1, 2, 3))
    texts = (answer, answer, "the cat sat", "no")
    results: dict[Method, MethodResult] = {
        method: MethodResult(texts, (1.0,) * 4) for method in ("base", "best_single", "composed")
    }
    score = make_report(split, results, {}, metric="exact_match").rows[0].held_out
    assert score is not None
    assert (score.correct, score.exact, score.score) == (2, 2, 0.5)
    assert score.rouge_l == pytest.approx((1 + 1 + 6 / 11 + 0) / 4)
    short = report_of({"composed": 1, "best_single": 1, "base": 1}).rows[0].fit
    assert (short.exact, short.rouge_l) == (None, None)


def test_scores_and_losses_have_bootstrap_intervals() -> None:
    report = report_of({"composed": 20, "best_single": 8, "base": 0})
    base, single, composed = (row.held_out for row in report.rows)
    assert [score.interval_kind for score in (base, single, composed)] == [
        "wilson",
        "bootstrap",
        "wilson",
    ]
    assert single.interval[0] < 0.4 < single.interval[1]
    assert composed.interval[1] == 1.0
    assert composed.interval[0] > 0.8
    split = split_of(0, 20)
    result = MethodResult(("yes",) * 20, tuple(i / 10 for i in range(20)))
    score = score_rows(split.held_out, result, "exact_match")
    assert score.loss_interval is not None
    assert score.loss_interval[0] < score.loss < score.loss_interval[1]


@pytest.mark.parametrize(
    ("right", "offer"),
    [
        ({"composed": 9, "best_single": 5, "base": 0}, "Use the composition"),
        ({"composed": 5, "best_single": 9, "base": 0}, "Best single: own/two did at least as well"),
        ({"composed": 5, "best_single": 5, "base": 9}, "The base model alone did at least"),
        ({"composed": 5, "best_single": 5, "base": 5}, "The base model alone did at least"),
        ({"composed": 5, "best_single": 5, "base": 0, "uniform": 9}, "merge with equal weights"),
        ({"composed": 5, "best_single": 5, "base": 0, "prompting": 9}, "rows into the prompt"),
        ({"composed": 5, "best_single": 5, "base": 0, "quick_lora": 9}, "train one"),
    ],
)
def test_the_winner_is_what_is_offered(right: dict[Method, int], offer: str) -> None:
    split = split_of(2, 20)
    results = {
        method: MethodResult(("no",) * 2 + ("yes",) * n + ("no",) * (20 - n), (1.0,) * 22)
        for method, n in right.items()
    }
    labels: dict[Method, str] = {"best_single": "Best single: own/two"}
    assert offer in make_report(split, results, labels, metric="exact_match").verdict.offer


@pytest.mark.parametrize("metric", ["exact_match", "rougeL"])
def test_cross_validated_figures_stand_beside_the_split(metric: Metric) -> None:
    split = split_of(5, 3)
    results: dict[Method, MethodResult] = {
        method: MethodResult(("yes",) * 8, (1.0,) * 8)
        for method in ("base", "best_single", "composed")
    }
    folded: dict[Method, MethodResult] = {
        "composed": MethodResult(("yes",) * 6 + ("no",) * 2, (1.0,) * 8),
        "best_single": MethodResult(("yes",) * 4 + ("no",) * 4, (1.0,) * 8),
    }
    report = make_report(split, results, {}, metric=metric, folded=CrossValidation(4, 120, folded))
    assert report.folds == 4
    base, single, composed = report.rows
    assert base.cross_validated is None
    assert (single.cross_validated.n, single.cross_validated.score) == (8, 0.5)
    assert composed.cross_validated.score == 0.75
    detail = report.verdict.detail
    assert "Cross-validated in 4 folds over all 8 rows" in detail
    assert ("6 right" if metric == "exact_match" else "ROUGE-L 0.75") in detail
    assert "show little" not in detail


@pytest.mark.parametrize(("n", "words"), [(1, "One held-out row shows"), (3, "3 held-out rows sh")])
def test_few_held_out_rows_are_said_to_show_little(n: int, words: str) -> None:
    right: dict[Method, int] = {"composed": 1, "best_single": 1, "base": 0}
    assert words in report_of(right, n_held_out=n).verdict.detail
    assert "little" not in report_of(right, n_held_out=5).verdict.detail


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
