"""Geometry of the site's charts: numbers in, frozen drawing instructions out.

Every function here is pure: it turns weights, losses and scores into positions inside a
``0 0 100 H`` view box and into the words that go beside the drawing. The templates in
``templates/charts/`` write those positions as SVG attributes (a strict CSP allows them) and
``site.css`` gives the colours; nothing here knows Django, HTML or a colour.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from composer.report import wilson_interval
from marketplace.catalogue.numerals import NONE, format_loss, format_percent, format_signed

GAIN_TOP = 9.0
STRANDS_SHOWN = 6
METHOD_ORDER = ("base", "prompting", "uniform", "best_single", "composed")
METHOD_LABELS = {
    "base": "Base, zero-shot",
    "prompting": "Base, few-shot prompting",
    "uniform": "Uniform mean",
    "best_single": "Best single",
    "composed": "Composed",
}
METRIC_LABELS = {"exact_match": "Exact match", "rougeL": "ROUGE-L"}
_DOT_EDGE = 1.5
_STRAND_GAP = 2.2


def read_field(item: object, name: str, default: Any = None) -> Any:
    """Read ``name`` from a mapping or an object, so that charts take rows of either kind."""
    if isinstance(item, Mapping):
        return item.get(name, default)
    return getattr(item, name, default)


def finite(value: object) -> float | None:
    """Return ``value`` as a finite float, or None for a missing, NaN or infinite one."""
    if value is None or isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def tenth(value: float) -> str:
    """Write a position with one decimal and a dot, whatever the active locale."""
    return f"{value:.1f}".replace("-0.0", "0.0")


# ---- gain: base loss against the adapter's loss on its own samples ------------------------


@dataclass(frozen=True, slots=True)
class Gain:
    """One row of the shelf: ring at the base's loss, dot at the adapter's, a line between."""

    ring: str
    dot: str
    link_start: str
    link_end: str
    base_text: str
    loss_text: str
    sentence: str


def draw_gain(base_loss: object, loss: object, *, top: float = GAIN_TOP) -> Gain | None:
    """Place ring and dot on one scale for the whole list; None when either loss is unknown."""
    base, own = finite(base_loss), finite(loss)
    if base is None or own is None:
        return None
    ring, dot = (_clamp(100 * value / top, _DOT_EDGE, 100 - _DOT_EDGE) for value in (base, own))
    word = "down from" if own < base else "up from" if own > base else "the same as"
    return Gain(
        ring=tenth(ring),
        dot=tenth(dot),
        link_start=tenth(min(ring, dot)),
        link_end=tenth(max(ring, dot)),
        base_text=format_loss(base),
        loss_text=format_loss(own),
        sentence=f"Loss {format_loss(own)} with the adapter, {word} {format_loss(base)} alone.",
    )


# ---- weight bars --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WeightBar:
    """One signed weight as a bar that grows from zero in the middle."""

    name: str
    url: str
    note: str
    text: str
    sign: str  # "plus", "minus" or "zero": the class that colours bar and number
    x: str
    width: str


@dataclass(frozen=True, slots=True)
class WeightBars:
    """All bars on one axis; ``limit_text`` is what stands at both of its ends."""

    bars: tuple[WeightBar, ...]
    limit: float
    limit_text: str


def draw_weight_bars(rows: Iterable[object]) -> WeightBars:
    """Draw signed weights in the given order on an axis of ±1 (±1.5, ±2, ... when needed).

    Args:
        rows: ``(name, weight)`` pairs, or mappings or objects with ``name``, ``weight`` and
            optionally ``url`` and ``note``.
    """
    parsed = [_parse_weight(row) for row in rows]
    largest = max((abs(weight) for _, weight, _, _ in parsed), default=0.0)
    limit = max(1.0, math.ceil(round(largest * 2, 6)) / 2)
    return WeightBars(
        bars=tuple(_draw_bar(*row, limit=limit) for row in parsed),
        limit=limit,
        limit_text=f"{limit:g}",
    )


def _parse_weight(row: object) -> tuple[str, float, str, str]:
    if isinstance(row, Sequence) and not isinstance(row, str):
        return str(row[0]), finite(row[1]) or 0.0, "", ""
    return (
        str(read_field(row, "name", "")),
        finite(read_field(row, "weight")) or 0.0,
        str(read_field(row, "url", "") or ""),
        str(read_field(row, "note", "") or ""),
    )


def _draw_bar(name: str, weight: float, url: str, note: str, *, limit: float) -> WeightBar:
    text = format_signed(weight)
    width = 50 * abs(weight) / limit
    return WeightBar(
        name=name,
        url=url,
        note=note,
        text=text,
        sign=sign_class(weight),
        x=tenth(50 - width if weight < 0 else 50),
        width=tenth(width),
    )


def sign_class(weight: float) -> str:
    """Name the sign as it is printed: a weight that rounds to 0.00 is "zero"."""
    rounded = round(weight, 2)
    if rounded == 0:
        return "zero"
    return "plus" if rounded > 0 else "minus"


# ---- loss plot ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LossPlot:
    """A step line of the best so far over one dot for each evaluation.

    ``x`` spans the whole budget from the start and ``y`` starts at 0, so that nothing moves
    while a job runs; ``off_scale`` names references above the top.
    """

    y_labels: tuple[str, ...]  # from the top down
    y_grid: tuple[str, ...]
    x_labels: tuple[str, ...]
    dots: tuple[tuple[str, str], ...]
    best_path: str
    area_path: str
    now: tuple[str, str] | None
    best_single_y: str
    uniform_y: str
    best_text: str
    best_single_text: str
    uniform_text: str
    off_scale: tuple[str, ...]
    sentence: str


@dataclass(frozen=True, slots=True)
class References:
    """Losses on the fit rows that the search is compared with; None where not measured."""

    best_single: float | None = None
    uniform: float | None = None
    base: float | None = None


def draw_loss_plot(
    evaluations: Iterable[object], budget: int, references: References | None = None
) -> LossPlot:
    """Draw the fit loss of a search by evaluation.

    Args:
        evaluations: pairs ``(number, loss)``, or mappings or objects with ``number`` and
            ``fit_loss`` (or ``loss``). Number 0, the base alone, is not drawn: it is a reference.
        budget: evaluations of the whole search, the right end of the x axis.
        references: the comparison lines.
    """
    references = references or References()
    points = sorted(point for point in map(_parse_evaluation, evaluations) if point is not None)
    last = max([budget, 1, *(number for number, _ in points)])
    top = _choose_top([loss for _, loss in points], references)
    dots = tuple((tenth(100 * n / last), _height(loss, top)) for n, loss in points)
    best_path, area_path, best = _draw_steps(points, last=last, top=top)
    return LossPlot(
        y_labels=tuple(_axis_number(top * step / 4) for step in (4, 3, 2, 1, 0)),
        y_grid=("0", "25", "50", "75"),
        x_labels=_x_labels(last),
        dots=dots,
        best_path=best_path,
        area_path=area_path,
        now=(dots[-1][0], _height(best, top)) if dots and best is not None else None,
        best_single_y=_reference_height(references.best_single, top),
        uniform_y=_reference_height(references.uniform, top),
        best_text=format_loss(best),
        best_single_text=format_loss(references.best_single),
        uniform_text=format_loss(references.uniform),
        off_scale=_name_off_scale(references, top),
        sentence=_describe_plot(points, best, last, references),
    )


def _parse_evaluation(item: object) -> tuple[int, float] | None:
    if isinstance(item, Sequence) and not isinstance(item, str):
        number, loss = int(item[0]), finite(item[1])
    else:
        fit_loss = finite(read_field(item, "fit_loss"))
        loss = finite(read_field(item, "loss")) if fit_loss is None else fit_loss
        number = int(read_field(item, "number", 0))
    return None if loss is None or number < 1 else (number, loss)


def _choose_top(losses: Sequence[float], references: References) -> float:
    """Choose a round top that shows the first evaluation and both comparison lines.

    The base often lies far above everything else; it is left to the legend, and a few very bad
    evaluations sit at the top edge, so that the interesting part keeps its height.
    """
    wanted = [losses[0] if losses else None, references.best_single, references.uniform]
    known = [value for value in wanted if value is not None]
    if not known:
        known = [references.base] if references.base is not None else [1.0]
    typical = sorted(losses)[len(losses) * 3 // 4] if losses else 0.0
    need = max(*known, typical) * 1.15 if len(known) > 1 else max(known[0], typical) * 1.15
    return _round_up(need)


TINY = 1e-9  # below it a loss is drawn as zero


def _round_up(value: float) -> float:
    """Round up to 1, 2, 4, 6 or 8 times a power of ten, so that quarters stay short numbers."""
    if value < TINY:
        return 1.0
    power: float = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 6, 8, 10) if step * power >= value - 1e-12)


def _axis_number(value: float) -> str:
    return f"{value:.3g}" if value else "0"


def _x_labels(last: int) -> tuple[str, ...]:
    if last < 4:  # noqa: PLR2004 - fewer than four evaluations have no useful quarters
        return ("0", str(last))
    return tuple(str(round(last * quarter / 4)) for quarter in range(5))


def _height(loss: float | None, top: float) -> str:
    return tenth(_clamp(100 * (1 - (loss or 0.0) / top), 0.0, 100.0))


def _reference_height(loss: float | None, top: float) -> str:
    return "" if loss is None or loss > top else _height(loss, top)


def _draw_steps(
    points: Sequence[tuple[int, float]], *, last: int, top: float
) -> tuple[str, str, float | None]:
    """Return the step line, the same closed to the axis, and the best loss reached."""
    if not points:
        return "", "", None
    first_number, best = points[0]
    start = tenth(100 * first_number / last)
    path = f"M{start} {_height(best, top)}"
    for number, loss in points[1:]:
        path += f"H{tenth(100 * number / last)}"
        if loss < best:
            best = loss
            path += f"V{_height(best, top)}"
    return path, f"{path}V100H{start}Z", best


def _name_off_scale(references: References, top: float) -> tuple[str, ...]:
    named = (
        ("best single", references.best_single),
        ("uniform mean", references.uniform),
        ("base", references.base),
    )
    return tuple(
        f"{name} {format_loss(loss)}, off the scale"
        for name, loss in named
        if loss is not None and loss > top
    )


def _describe_plot(
    points: Sequence[tuple[int, float]], best: float | None, last: int, references: References
) -> str:
    if not points:
        return f"Fit loss by evaluation. None of {last} evaluations has been scored yet."
    compared = (
        ("Best single adapter", references.best_single),
        ("Uniform mean", references.uniform),
        ("Base", references.base),
    )
    opening = (
        f"Fit loss by evaluation. Best so far falls from {format_loss(points[0][1])} to "
        f"{format_loss(best)} after {points[-1][0]} of {last} evaluations."
    )
    facts = [f"{name} {format_loss(loss)}." for name, loss in compared if loss is not None]
    return " ".join([opening, *facts])


# ---- score table ------------------------------------------------------------------------------


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
        width=tenth(_clamp(100 * (score or 0.0), 0.0, 100.0)),
        whisker=_draw_whisker(low, high),
        interval_text=NONE if low is None or high is None else f"{low:.0f}{NONE}{high:.0f}",
        rows_text=f"{correct}/{n}" if correct is not None else str(n),
        loss_text=format_loss(finite(read_field(part, "loss"))),
        fit_loss_text=format_loss(finite(read_field(_part(row, "fit"), "loss"))),
    )


def _draw_whisker(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return ""
    left, right = tenth(_clamp(low, 0, 100)), tenth(_clamp(high, 0, 100))
    return f"M{left} 16H{right}M{left} 13.5V18.5M{right} 13.5V18.5"


# ---- lineage --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Strand:
    """One parent: its words and its two curves (flowing right, and down on a phone)."""

    name: str
    url: str
    note: str
    text: str
    sign: str
    stroke: str
    wide_path: str
    tall_path: str


@dataclass(frozen=True, slots=True)
class Lineage:
    """The heaviest parents as strands that meet in the child; the rest are only counted."""

    strands: tuple[Strand, ...]
    hidden_text: str


def draw_lineage(parents: Iterable[object]) -> Lineage:
    """Lay the parents' strands: adders above subtractors, the heaviest first.

    Args:
        parents: as for :func:`draw_weight_bars`; ``note`` is the pinned version ("v1 · 3d38a28a").
    """
    parsed = [_parse_weight(parent) for parent in parents]
    kept = sorted(parsed, key=lambda row: -abs(row[1]))[:STRANDS_SHOWN]
    shown = sorted(kept, key=lambda row: (row[1] < 0, -abs(row[1])))
    hidden = len(parsed) - len(shown)
    return Lineage(
        strands=tuple(_draw_strand(*row, place=i, total=len(shown)) for i, row in enumerate(shown)),
        hidden_text=f"and {hidden} smaller parent{'s' if hidden > 1 else ''}" if hidden else "",
    )


def _draw_strand(
    name: str, weight: float, url: str, note: str, *, place: int, total: int
) -> Strand:
    start = (place + 0.5) * 100 / total
    end = 50 + (place - (total - 1) / 2) * _STRAND_GAP
    # On a phone the strands turn downwards; the first one lands furthest right, so none cross.
    lands = 88 - place * 66 / (total - 1) if total > 1 else 55.0
    turn = 20 + 0.8 * start
    y = tenth(start)
    return Strand(
        name=name,
        url=url,
        note=note,
        text=format_signed(weight),
        sign="minus" if sign_class(weight) == "minus" else "plus",
        stroke=tenth(max(1.5, 14 * abs(weight))),
        wide_path=f"M0 {y}C55 {y} 45 {tenth(end)} 100 {tenth(end)}",
        tall_path=f"M0 {y}C{tenth(lands * 0.6)} {y} {tenth(lands)} {tenth(turn)} "
        f"{tenth(lands)} 100",
    )


# ---- progress ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProgressBar:
    """How much of a known total is done."""

    width: str
    sentence: str


def draw_progress(done: object, total: object, noun: str = "evaluations") -> ProgressBar:
    """Draw ``done`` of ``total``; an unknown or zero total is an empty bar."""
    whole, part = finite(total) or 0.0, finite(done) or 0.0
    share = _clamp(100 * part / whole, 0.0, 100.0) if whole > 0 else 0.0
    return ProgressBar(width=tenth(share), sentence=f"{share:.0f} % of the {noun} done")


def _clamp(value: float, low: float, high: float) -> float:
    return max(low, min(high, value))
