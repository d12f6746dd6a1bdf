"""The honest comparison: every method's share of rows, with its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from composer.intervals import wilson_interval
from marketplace.catalogue.charts.reading import clamp, finite, read_field, tenth
from marketplace.catalogue.numerals import NONE, format_loss, format_percent

METHOD_ORDER = ("base", "prompting", "uniform", "best_single", "composed")
METHOD_LABELS = {
    "base": "Base, zero-shot",
    "prompting": "Base, few-shot prompting",
    "uniform": "Uniform mean",
    "best_single": "Best single",
    "composed": "Composed",
}
METRIC_LABELS = {"exact_match": "Exact match", "rougeL": "ROUGE-L"}


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One method of a report: its share of rows answered, with the interval under the bar."""

    method: str
    label: str
    hint: str
    wins: bool
    score_text: str
    width: str
    whisker: str
    interval_text: str
    rows_text: str
    loss_text: str
    fit_loss_text: str


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """A report as drawn: fixed order of methods, the best one marked whichever it is."""

    metric_label: str
    rows: tuple[ScoreRow, ...]
    held_out: bool  # False: too few rows to hold any out, the scores are on the fit rows
    show_loss: bool


def draw_score_table(report: object, hints: Mapping[str, str] | None = None) -> ScoreTable:
    """Draw the rows of ``composer.report.Report.to_dict()`` (or of an object like it).

    Args:
        report: ``rows`` of ``{"method", "label", "held_out": {"n", "correct", "score",
            "interval", "loss"}, "fit": {...}}``, and ``metric``. Scores and intervals are shares
            from 0 to 1; a missing interval is computed (Wilson, 95 %) from ``correct`` and ``n``.
        hints: a short grey line for each method ("demo/pick_animal"); without one, what follows a
            colon in the label stands there ("Best single: demo/pick_animal").
    """
    rows = sorted(read_field(report, "rows", ()) or (), key=_method_place)
    held_out = any((read_field(_part(row, "held_out"), "n") or 0) > 0 for row in rows)
    side = "held_out" if held_out else "fit"
    winner = _find_winner(rows, side)
    drawn = tuple(
        _draw_score(row, side=side, wins=row is winner, hint=_hint_of(row, hints)) for row in rows
    )
    metric = str(read_field(report, "metric", "exact_match"))
    return ScoreTable(
        metric_label=METRIC_LABELS.get(metric, metric),
        rows=drawn,
        held_out=held_out,
        show_loss=any(row.loss_text != NONE or row.fit_loss_text != NONE for row in drawn),
    )


def _method_place(row: object) -> int:
    method = str(read_field(row, "method", ""))
    return METHOD_ORDER.index(method) if method in METHOD_ORDER else len(METHOD_ORDER)


def _part(row: object, side: str) -> object:
    return read_field(row, side) or {}


def _hint_of(row: object, hints: Mapping[str, str] | None) -> str:
    method = str(read_field(row, "method", ""))
    return str((hints or {}).get(method) or read_field(row, "hint", "") or "")


def _find_winner(rows: Sequence[object], side: str) -> object:
    """Return the row with the best score; equal scores are told apart by their loss."""
    scored = [row for row in rows if finite(read_field(_part(row, side), "score")) is not None]

    def rank(row: object) -> tuple[float, float]:
        part = _part(row, side)
        loss = finite(read_field(part, "loss"))
        return finite(read_field(part, "score")) or 0.0, -math.inf if loss is None else -loss

    return max(scored, key=rank, default=None)


def _draw_score(row: object, *, side: str, wins: bool, hint: str) -> ScoreRow:
    part, method = _part(row, side), str(read_field(row, "method", ""))
    score = finite(read_field(part, "score"))
    label, _, detail = str(
        read_field(row, "label", "") or METHOD_LABELS.get(method, method)
    ).partition(": ")
    n, correct = read_field(part, "n") or 0, read_field(part, "correct")
    interval = read_field(part, "interval") or (
        wilson_interval(correct, n) if correct is not None and n else None
    )
    low, high = (100 * bound for bound in interval) if interval else (None, None)
    return ScoreRow(
        method=method,
        label=label,
        hint=hint or detail,
        wins=wins,
        score_text=format_percent(score),
        width=tenth(clamp(100 * (score or 0.0), 0.0, 100.0)),
        whisker=_draw_whisker(low, high),
        interval_text=NONE if low is None or high is None else f"{low:.0f}{NONE}{high:.0f}",
        rows_text=_describe_rows(part, n),
        loss_text=format_loss(finite(read_field(part, "loss"))),
        fit_loss_text=format_loss(finite(read_field(_part(row, "fit"), "loss"))),
    )


def _describe_rows(part: object, n: int) -> str:
    """Return how many rows were right; beside ROUGE-L it stands next to another figure."""
    correct, exact = read_field(part, "correct"), read_field(part, "exact")
    if correct is not None:
        return f"{correct}/{n}"
    return str(n) if exact is None else f"{exact}/{n} exact"


def _draw_whisker(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return ""
    left, right = tenth(clamp(low, 0, 100)), tenth(clamp(high, 0, 100))
    return f"M{left} 16H{right}M{left} 13.5V18.5M{right} 13.5V18.5"
