"""Parents as strands that meet in their child."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from marketplace.catalogue.charts.reading import tenth
from marketplace.catalogue.charts.weight_bars import parse_weight, sign_class
from marketplace.catalogue.numerals import format_signed

STRANDS_SHOWN = 6
_STRAND_GAP = 2.2


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
        parents: as for `draw_weight_bars`; ``note`` is the pinned version ("v1 · 3d38a28a").
    """
    parsed = [parse_weight(parent) for parent in parents]
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
