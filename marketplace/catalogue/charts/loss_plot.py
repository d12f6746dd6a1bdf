"""The fit loss of a search by evaluation, with the losses it is compared with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from marketplace.catalogue.charts.reading import clamp, finite, read_field, tenth
from marketplace.catalogue.numerals import format_loss

TINY = 1e-9  # below it a loss is drawn as zero


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
    return tenth(clamp(100 * (1 - (loss or 0.0) / top), 0.0, 100.0))


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
