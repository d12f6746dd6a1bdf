"""The honest comparison: base, best single, uniform mean and the composition on the same rows.

Holds the figures of every method on fit and held-out rows, the exact paired test against the best
single adapter and a verdict in plain words, which may well be that composing did not help. Answers
and losses come from `composer.scoring`, intervals from `composer.intervals`; drawing is left to the
caller.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from composer.examples import MIN_ROWS_TO_SPLIT, Example, ExampleSplit
from composer.intervals import (
    Interval,
    IntervalKind,
    loss_interval,
    paired_p_value,
    share_interval,
)
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
# Answers of more words than this are sentences: ROUGE-L says more of them than exact match.
LONG_ANSWER_WORDS = 6
# With fewer held-out rows than this the verdict says how little they show.
FEW_HELD_OUT = 5


@dataclass(frozen=True)
class Score:
    """One method on one set of rows; `score` lies in 0 to 1, `interval` is its 95 % interval.

    `correct` counts exact matches and is None where the metric is ROUGE-L. `loss` is the mean over
    rows of the mean loss per answer token, in nats; None where there is none or it is no number.
    Where answers are long, `exact` counts exact matches and `rouge_l` is the mean ROUGE-L,
    whichever of them is the metric.
    """

    n: int
    correct: int | None
    score: float
    interval: Interval
    loss: float | None
    loss_interval: Interval | None = None
    interval_kind: IntervalKind = "bootstrap"
    exact: int | None = None
    rouge_l: float | None = None


@dataclass(frozen=True)
class ReportRow:
    """One method; `held_out` is None where every row was used for fitting.

    `cross_validated` is over all rows, each judged by a search that did not see it.
    """

    method: Method
    label: str
    fit: Score
    held_out: Score | None
    cross_validated: Score | None = None


@dataclass(frozen=True)
class Verdict:
    """What the figures allow to say; `p_value` is None where nothing was held out.

    `offer` says what to use or publish: the winner, which need not be the composition.
    """

    headline: str
    detail: str
    winner: Method
    p_value: float | None
    offer: str = ""


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
class CrossValidation:
    """What each method did on all rows, fit rows first; each row by a fold that did not see it."""

    folds: int
    evaluations: int
    results: Mapping[Method, MethodResult]


@dataclass(frozen=True)
class Canary:
    """What the base and the composition answer to a prompt outside the task."""

    prompt: str
    base: str
    composed: str


@dataclass(frozen=True)
class Sanity:
    """The composition beside its parents; see `composer.sanity`.

    `norm_ratio` and `outliers` (by layer) are sizes of changes as multiples of the largest
    parent's; `notes` says in words what stands out and is empty where nothing does.
    """

    norm_ratio: float
    outliers: Mapping[str, float]
    canaries: tuple[Canary, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """All figures of one composition; `folds` is 0 where nothing was cross-validated."""

    rows: tuple[ReportRow, ...]
    metric: Metric
    n_fit: int
    n_held_out: int
    verdict: Verdict
    answers: tuple[RowAnswers, ...] = field(default=(), repr=False)
    folds: int = 0
    sanity: Sanity | None = field(default=None, repr=False)

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
    folded: CrossValidation | None = None,
) -> Report:
    """Turn answers and losses into the comparison that users read."""
    rows = (*split.fit, *split.held_out)
    marks = {m: _mark(rows, item, metric, exact_case=exact_case) for m, item in results.items()}
    crossed: dict[Method, _Marks] = {}
    if folded is not None:
        crossed = {
            m: _mark(rows, item, metric, exact_case=exact_case)
            for m, item in folded.results.items()
        }
    order = [method for method in ORDER if method in results]
    lines = tuple(
        ReportRow(
            method,
            labels.get(method, method),
            fit=marks[method].score(*_range(split, "fit")),
            held_out=marks[method].score(*_range(split, "held_out")) if split.held_out else None,
            cross_validated=crossed[method].score() if method in crossed else None,
        )
        for method in order
    )
    grades = {method: item.grades for method, item in marks.items()}
    return Report(
        rows=lines,
        metric=metric,
        n_fit=len(split.fit),
        n_held_out=len(split.held_out),
        verdict=judge(lines, grades, split, metric, 0 if folded is None else folded.folds),
        answers=_row_answers(split, results, grades, order),
        folds=0 if folded is None else folded.folds,
    )


def score_rows(
    examples: Sequence[Example], result: MethodResult, metric: Metric, *, exact_case: bool = False
) -> Score:
    """Score one method on rows that are all of one side."""
    return _mark(examples, result, metric, exact_case=exact_case).score()


def choose_metric(examples: Sequence[Example]) -> Metric:
    """Return ROUGE-L where the expected answers are sentences, else exact match."""
    words = [len(example.output.split()) for example in examples]
    return "rougeL" if statistics.median(words) > LONG_ANSWER_WORDS else "exact_match"


def judge(
    rows: Sequence[ReportRow],
    grades: Mapping[Method, Sequence[float]],
    split: ExampleSplit,
    metric: Metric,
    folds: int = 0,
) -> Verdict:
    """Say in plain words whether composing helped, from an exact paired test where there is one."""
    side: Side = "held_out" if split.held_out else "fit"
    winner = _winner(rows, side)
    detail = _counts_sentence(rows, side, metric)
    if folds:
        detail = f"{detail} {_folds_sentence(rows, folds, metric)}"
    offer = _offer(winner, rows, "" if side == "held_out" else " on the rows it was fitted to")
    if side == "fit":
        return Verdict(
            "Nothing was held out.",
            _unjudged_sentence(len(split.fit), detail),
            winner,
            None,
            offer,
        )
    if len(split.held_out) < FEW_HELD_OUT and not folds:
        n = len(split.held_out)
        detail += f" {'One held-out row shows' if n == 1 else f'{n} held-out rows show'} little."
    start, end = _range(split, "held_out")
    p_value = paired_p_value(grades["composed"][start:end], grades["best_single"][start:end])
    better = _mean(grades["composed"][start:end]) > _mean(grades["best_single"][start:end])
    return Verdict(_headline(winner, p_value, better=better), detail, winner, p_value, offer)


@dataclass(frozen=True)
class _Marks:
    """One method's answers marked row by row; `grades` are those of the metric."""

    metric: Metric
    exact: list[float]
    rouge: list[float] | None  # None where answers are short and nobody asked for it
    losses: tuple[float, ...] | None

    @property
    def grades(self) -> list[float]:
        return self.exact if self.metric == "exact_match" or self.rouge is None else self.rouge

    def score(self, start: int = 0, end: int | None = None) -> Score:
        """Sum up the rows from `start` to `end`."""
        here = self.grades[start:end]
        correct = round(sum(self.exact[start:end]))
        losses = None if self.losses is None or not here else self.losses[start:end]
        loss = None if losses is None else _mean(losses)
        interval, kind = share_interval(here)
        return Score(
            n=len(here),
            correct=correct if self.metric == "exact_match" else None,
            score=_mean(here),
            interval=interval,
            loss=loss if loss is not None and math.isfinite(loss) else None,
            loss_interval=None if losses is None else loss_interval(losses),
            interval_kind=kind,
            exact=None if self.rouge is None else correct,
            rouge_l=None if self.rouge is None else _mean(self.rouge[start:end]),
        )


def _mark(
    rows: Sequence[Example], result: MethodResult, metric: Metric, *, exact_case: bool
) -> _Marks:
    pairs = list(zip(result.answers, rows, strict=True))
    exact = [float(is_match(text, row.output, exact_case=exact_case)) for text, row in pairs]
    long = metric == "rougeL" or choose_metric(rows) == "rougeL"
    rouge = [rouge_l(text, row.output) for text, row in pairs] if long else None
    return _Marks(metric, exact, rouge, result.losses)


def _range(split: ExampleSplit, side: Side) -> tuple[int, int]:
    n_fit = len(split.fit)
    return (0, n_fit) if side == "fit" else (n_fit, n_fit + len(split.held_out))


def _unjudged_sentence(n_fit: int, detail: str) -> str:
    """Say why the figures are no test, and how to get one."""
    rows = "The only row was" if n_fit == 1 else f"All {n_fit} rows were"
    advice = (
        "Give six rows or more for a score on rows the search never saw."
        if n_fit < MIN_ROWS_TO_SPLIT
        else "Fit on fewer of them for a score on rows the search never saw."
    )
    return f"{rows} used to choose the weights, so this is no test. {detail} {advice}"


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


def _folds_sentence(rows: Sequence[ReportRow], folds: int, metric: Metric) -> str:
    """Say what the folds gave: every row judged by a search that did not see it."""
    found = {row.method: row.cross_validated for row in rows if row.cross_validated}
    composed, single = found.get("composed"), found.get("best_single")
    if composed is None or single is None:
        return ""
    if metric == "rougeL":
        figures = f"ROUGE-L {composed.score:.2f}, the best single adapter {single.score:.2f}"
    else:
        figures = f"{composed.correct} right, the best single adapter {single.correct}"
    return (
        f"Cross-validated in {folds} folds over all {composed.n} rows, which no search that judged "
        f"them had seen: {figures}."
    )


def _offer(winner: Method, rows: Sequence[ReportRow], where: str) -> str:
    """Say what to use: the winner, even where it is not what was composed."""
    labels = {row.method: row.label for row in rows}
    return {
        "composed": f"Use the composition: nothing did better{where}.",
        "best_single": f"{labels.get('best_single')} did at least as well: use it as it is.",
        "base": "The base model alone did at least as well: use it as it is.",
        "uniform": "The plain mean did at least as well: merge with equal weights.",
        "prompting": "Prompting did at least as well: put your rows into the prompt.",
        "quick_lora": "A LoRA trained on your rows alone did at least as well: train one.",
    }[winner]


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
