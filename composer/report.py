"""The honest comparison: base, best single, uniform mean and the composition on the same rows.

Holds the figures of every method on fit and held-out rows, their intervals, the exact paired test
against the best single adapter and a verdict in plain words, which may well be that composing did
not help. Answers and losses come from `composer.scoring`; drawing is left to the caller.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from composer.examples import Example, ExampleSplit
from composer.matching import is_match, rouge_l

Method = Literal["base", "prompting", "uniform", "best_single", "quick_lora", "composed"]
Metric = Literal["exact_match", "rougeL"]
Side = Literal["fit", "held_out"]

ORDER: tuple[Method, ...] = (
    "base",
    "prompting",
    "uniform",
    "best_single",
    "quick_lora",
    "composed",
)
CLEAR, PROBABLE = 0.05, 0.2  # p-values of the exact paired test
Z95 = 1.959963984540054
RESAMPLES = 2000


@dataclass(frozen=True)
class Score:
    """One method on one set of rows; `score` lies in 0 to 1, `interval` is its 95 % interval.

    `correct` counts exact matches and is None where the metric is ROUGE-L. `loss` is the mean over
    rows of the mean loss per answer token, in nats; None where there is none or it is no number.
    """

    n: int
    correct: int | None
    score: float
    interval: tuple[float, float]
    loss: float | None


@dataclass(frozen=True)
class ReportRow:
    """One method; `held_out` is None where every row was used for fitting."""

    method: Method
    label: str
    fit: Score
    held_out: Score | None


@dataclass(frozen=True)
class Verdict:
    """What the figures allow to say; `p_value` is None where nothing was held out."""

    headline: str
    detail: str
    winner: Method
    p_value: float | None


@dataclass(frozen=True)
class RowAnswers:
    """What every method answered to one row."""

    input: str
    expected: str
    split: Literal["fit", "held_out"]
    answers: Mapping[str, str]
    correct: Mapping[str, bool]


@dataclass(frozen=True)
class MethodResult:
    """What one method did on all rows, fit rows first; losses are None for a longer prompt."""

    answers: tuple[str, ...]
    losses: tuple[float, ...] | None


@dataclass(frozen=True)
class Report:
    """All figures of one composition."""

    rows: tuple[ReportRow, ...]
    metric: Metric
    n_fit: int
    n_held_out: int
    verdict: Verdict
    answers: tuple[RowAnswers, ...] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return asdict(self)


def make_report(
    split: ExampleSplit,
    results: Mapping[Method, MethodResult],
    labels: Mapping[Method, str],
    *,
    metric: Metric,
    exact_case: bool = False,
) -> Report:
    """Turn answers and losses into the comparison that users read."""
    grades = {
        method: _grades(split, result.answers, metric, exact_case=exact_case)
        for method, result in results.items()
    }
    order = [method for method in ORDER if method in results]
    rows = tuple(
        ReportRow(
            method,
            labels.get(method, method),
            fit=_score(grades[method], results[method].losses, metric, *_range(split, "fit")),
            held_out=_score(
                grades[method], results[method].losses, metric, *_range(split, "held_out")
            )
            if split.held_out
            else None,
        )
        for method in order
    )
    return Report(
        rows=rows,
        metric=metric,
        n_fit=len(split.fit),
        n_held_out=len(split.held_out),
        verdict=judge(rows, grades, split, metric),
        answers=_row_answers(split, results, grades, order),
    )


def score_rows(
    examples: Sequence[Example], result: MethodResult, metric: Metric, *, exact_case: bool = False
) -> Score:
    """Score one method on rows that are all of one side."""
    split = ExampleSplit((), tuple(examples), (), tuple(range(len(examples))))
    grades = _grades(split, result.answers, metric, exact_case=exact_case)
    return _score(grades, result.losses, metric, 0, len(examples))


def judge(
    rows: Sequence[ReportRow],
    grades: Mapping[Method, Sequence[float]],
    split: ExampleSplit,
    metric: Metric,
) -> Verdict:
    """Say in plain words whether composing helped, from an exact paired test where there is one."""
    side: Side = "held_out" if split.held_out else "fit"
    winner = _winner(rows, side)
    detail = _counts_sentence(rows, side, metric)
    if side == "fit":
        return Verdict(
            "Nothing was held out.",
            f"All {len(split.fit)} rows were needed to choose the weights, so this is no test. "
            f"{detail} Give six rows or more for a score on rows the search never saw.",
            winner,
            None,
        )
    start, end = _range(split, "held_out")
    p_value = paired_p_value(grades["composed"][start:end], grades["best_single"][start:end])
    better = _mean(grades["composed"][start:end]) > _mean(grades["best_single"][start:end])
    return Verdict(_headline(winner, p_value, better=better), detail, winner, p_value)


def wilson_interval(correct: int, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a share, 0 to 1 (Wilson 1927)."""
    if n == 0:
        return (0.0, 1.0)
    share, z2 = correct / n, Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return (max(0.0, centre - half), min(1.0, centre + half))


def bootstrap_interval(values: Sequence[float], *, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of a mean; the same for the same values."""
    if not values:
        return (0.0, 1.0)
    draw = random.Random(seed)  # noqa: S311 - resampling, not a secret
    n = len(values)
    means = sorted(_mean(draw.choices(values, k=n)) for _ in range(RESAMPLES))
    return (means[round(0.025 * RESAMPLES)], means[round(0.975 * RESAMPLES) - 1])


def paired_p_value(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the two-sided p-value of the exact sign test on rows where the two differ.

    On right and wrong answers this is the exact McNemar test (1947).
    """
    wins = sum(a > b for a, b in zip(first, second, strict=True))
    losses = sum(a < b for a, b in zip(first, second, strict=True))
    n, low = wins + losses, min(wins, losses)
    if n == 0:
        return 1.0
    tail = sum(math.comb(n, k) for k in range(low + 1)) / 2**n
    return min(1.0, float(2 * tail))


def _grades(
    split: ExampleSplit, answers: Sequence[str], metric: Metric, *, exact_case: bool
) -> list[float]:
    rows = [*split.fit, *split.held_out]
    if metric == "rougeL":
        return [rouge_l(answer, row.output) for answer, row in zip(answers, rows, strict=True)]
    return [
        float(is_match(answer, row.output, exact_case=exact_case))
        for answer, row in zip(answers, rows, strict=True)
    ]


def _range(split: ExampleSplit, side: Side) -> tuple[int, int]:
    n_fit = len(split.fit)
    return (0, n_fit) if side == "fit" else (n_fit, n_fit + len(split.held_out))


def _score(
    grades: Sequence[float],
    losses: Sequence[float] | None,
    metric: Metric,
    start: int,
    end: int,
) -> Score:
    here = list(grades[start:end])
    n = len(here)
    loss = None if losses is None or not n else _mean(losses[start:end])
    if loss is not None and not math.isfinite(loss):
        loss = None
    if metric == "rougeL":
        return Score(n, None, _mean(here), bootstrap_interval(here), loss)
    correct = round(sum(here))
    return Score(n, correct, _mean(here), wilson_interval(correct, n), loss)


def _winner(rows: Sequence[ReportRow], side: Side) -> Method:
    """Return the method with the best score; of equals the one with the lower loss."""

    def key(row: ReportRow) -> tuple[float, float]:
        score = row.held_out if side == "held_out" else row.fit
        if score is None:
            return (-1.0, -math.inf)
        return (score.score, -(math.inf if score.loss is None else score.loss))

    return max(rows, key=key).method


def _headline(winner: Method, p_value: float, *, better: bool) -> str:
    if winner in {"base", "prompting", "uniform", "quick_lora"}:
        names = {
            "base": "the base model alone",
            "prompting": "prompting with the same rows",
            "uniform": "the plain mean of the adapters",
            "quick_lora": "a LoRA trained on the same rows alone",
        }
        return f"No better than {names[winner]}."
    helped = "helped" if better else "did not help"
    if p_value < CLEAR:
        return f"Composing {helped}."
    if p_value < PROBABLE:
        return f"Composing probably {helped}."
    return "No clear difference to the best single adapter."


def _counts_sentence(rows: Sequence[ReportRow], side: Side, metric: Metric) -> str:
    found = {row.method: row.held_out if side == "held_out" else row.fit for row in rows}
    composed, single, base = found.get("composed"), found.get("best_single"), found.get("base")
    if composed is None or single is None or base is None:
        return ""
    kind = "held-out" if side == "held_out" else "fit"
    if metric == "rougeL":
        return (
            f"Its ROUGE-L on {composed.n} {kind} rows is {composed.score:.2f}, that of the best "
            f"single adapter {single.score:.2f}, of the base alone {base.score:.2f}."
        )
    return (
        f"It answers {composed.correct} of {composed.n} {kind} rows, the best single adapter "
        f"{single.correct}, the base alone {base.correct}."
    )


def _row_answers(
    split: ExampleSplit,
    results: Mapping[Method, MethodResult],
    grades: Mapping[Method, Sequence[float]],
    order: Sequence[Method],
) -> tuple[RowAnswers, ...]:
    rows: list[tuple[Example, Side]] = [(row, "fit") for row in split.fit]
    rows += [(row, "held_out") for row in split.held_out]
    return tuple(
        RowAnswers(
            input=row.input,
            expected=row.output,
            split=side,
            answers={method: results[method].answers[i] for method in order},
            correct={method: grades[method][i] == 1.0 for method in order},
        )
        for i, (row, side) in enumerate(rows)
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
