"""Signed weights as bars that grow from zero in the middle."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from marketplace.catalogue.charts.reading import finite, read_field, tenth
from marketplace.catalogue.numerals import format_signed


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
    parsed = [parse_weight(row) for row in rows]
    largest = max((abs(weight) for _, weight, _, _ in parsed), default=0.0)
    limit = max(1.0, math.ceil(round(largest * 2, 6)) / 2)
    return WeightBars(
        bars=tuple(_draw_bar(*row, limit=limit) for row in parsed),
        limit=limit,
        limit_text=f"{limit:g}",
    )


def parse_weight(row: object) -> tuple[str, float, str, str]:
    """Return name, weight, address and note of a row of any of the kinds above."""
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
