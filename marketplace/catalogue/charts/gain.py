"""A row of the shelf: the base's loss against the adapter's on its own samples."""

from __future__ import annotations

from dataclasses import dataclass

from marketplace.catalogue.charts.reading import clamp, finite, tenth
from marketplace.catalogue.numerals import format_loss

GAIN_TOP = 9.0
_DOT_EDGE = 1.5


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
    ring, dot = (clamp(100 * value / top, _DOT_EDGE, 100 - _DOT_EDGE) for value in (base, own))
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
