"""Plots of figures as small SVG files: `python -m benchmarks.plots FILE.json` draws stored ones.

Bars of one evaluation for each shape of `search_speed`, with the floors as lines; measuring is left
to the benchmarks.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from benchmarks.reporting import DOCUMENT, PROJECT

IMAGES = PROJECT / "docs" / "images"
WIDTH, LABEL, BAR, GAP, TOP, EDGE = 760, 250, 18, 8, 44, 70
INK, QUIET = "#333f48", "#7a8791"
COLOURS = {"lorahub": "#b5532a", "floor": "#7a8791", "composer": "#2f6f9f"}


def draw_bars(title: str, unit: str, values: Mapping[str, float]) -> str:
    """Return an SVG with one bar a value, and a dashed line at every value called a floor."""
    scale = (WIDTH - LABEL - EDGE) / max(values.values())
    height = TOP + len(values) * (BAR + GAP) + GAP
    parts = [_text(12, 26, f"{title}, {unit}", INK, 15)]
    for number, (name, value) in enumerate(values.items()):
        y = TOP + number * (BAR + GAP)
        colour = next((c for word, c in COLOURS.items() if name.startswith(word)), QUIET)
        length = value * scale
        parts += [
            _text(LABEL - 8, y + 13, name, INK, 12, end=True),
            f'<rect x="{LABEL}" y="{y}" width="{length:.1f}" height="{BAR}" fill="{colour}"/>',
            _text(LABEL + length + 6, y + 13, f"{value:.0f}", INK, 12),
        ]
    for name, value in values.items():
        if name.startswith("floor"):
            x = LABEL + value * scale
            parts.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{height - GAP}" '
                f'stroke="{QUIET}" stroke-dasharray="3 3"/>'
            )
    frame = f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(title)}" font-family="sans-serif">{frame}{"".join(parts)}</svg>\n'
    )


def draw_search_speed(data: Mapping[str, Any], folder: Path = IMAGES) -> list[Path]:
    """Write one plot a shape and return the files."""
    written = []
    for table in data["tables"]:
        found = re.fullmatch(r"One evaluation, (\w+) shape", table["title"])
        if found:
            values = _shown_rows(table["rows"])
            path = folder / f"search_speed_{found[1]}.svg"
            path.write_text(draw_bars(table["title"], "ms", values), encoding="utf-8")
            written.append(path)
    return written


def show_in_document(images: Sequence[Path], benchmark: str, document: Path = DOCUMENT) -> None:
    """Put the plots below the tables that `--docs` has just written."""
    end = f"<!-- end {benchmark} -->"
    links = "".join(f"![{path.stem.replace('_', ' ')}](images/{path.name})\n\n" for path in images)
    text = document.read_text(encoding="utf-8")
    document.write_text(text.replace(end, f"\n{links}{end}"), encoding="utf-8")


def _shown_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {row["what"]: row["ms an evaluation"] for row in rows}


def _text(x: float, y: float, text: str, colour: str, size: int, *, end: bool = False) -> str:
    anchor = ' text-anchor="end"' if end else ""
    return (
        f'<text x="{x:.1f}" y="{y}" font-size="{size}" fill="{colour}"{anchor}>'
        f"{escape(text)}</text>"
    )


def main() -> int:
    """Draw what `search_speed --json` has written."""
    parser = argparse.ArgumentParser(description="Draw stored figures of search_speed.")
    parser.add_argument("file", type=Path, help="what --json wrote")
    options = parser.parse_args()
    for path in draw_search_speed(json.loads(options.file.read_text(encoding="utf-8"))):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
