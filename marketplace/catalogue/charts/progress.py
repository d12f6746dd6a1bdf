"""How much of a known total is done, as a bar."""

from __future__ import annotations

from dataclasses import dataclass

from marketplace.catalogue.charts.reading import clamp, finite, tenth


@dataclass(frozen=True, slots=True)
class ProgressBar:
    """How much of a known total is done."""

    width: str
    sentence: str


def draw_progress(done: object, total: object, noun: str = "evaluations") -> ProgressBar:
    """Draw ``done`` of ``total``; an unknown or zero total is an empty bar."""
    whole, part = finite(total) or 0.0, finite(done) or 0.0
    share = clamp(100 * part / whole, 0.0, 100.0) if whole > 0 else 0.0
    return ProgressBar(width=tenth(share), sentence=f"{share:.0f} % of the {noun} done")
