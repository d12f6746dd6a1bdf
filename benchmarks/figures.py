"""The figures of docs/composer.md, drawn from runs on the demo's adapters and rows.

`python -m benchmarks.figures` writes docs/images/search.svg (how the fit loss falls, evaluation by
evaluation) and docs/images/screening.svg (every adapter alone). SmolLM2-135M, `pick_vehicle`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path

import numpy as np

from benchmarks.reporting import PROJECT
from benchmarks.zoo import BASE, demo_zoo
from composer.adapter import LoraAdapter
from composer.base_model import LoadedBase, load_base
from composer.composing.preparing import Work
from composer.composing.request import ComposeRequest
from composer.composing.searching import find_weights
from composer.examples import ExampleSplit
from composer.progress import EvaluationScored, Progress, never
from composer.scoring import Scorer, encode_examples
from composer.selection import keep_best, score_alone

TARGET, FIT_ROWS, CANDIDATES = "pick_vehicle", 5, 8
IMAGES = PROJECT / "docs" / "images"
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 640, 320, 56, 24, 44
COLOURS = ("#1f6feb", "#bc4c00", "#1a7f37", "#8250df", "#bf3989")


def main() -> int:
    """Screen, search five times, draw."""
    zoo = demo_zoo()
    base = load_base(BASE)
    rows = zoo.only([TARGET]).targets[0].draw(FIT_ROWS, 0)
    scorer = Scorer(base, encode_examples(base, rows))
    pool = [LoraAdapter.load(item.folder, base.module_table, name=item.name) for item in zoo.pool]
    alone = score_alone(base, pool, scorer)
    candidates = keep_best(pool, alone, CANDIDATES)
    request = ComposeRequest(BASE, zoo.pool, rows, Path())
    lines = {}
    for name in ("NGOpt", "greedy", "greedy+gn", "gauss-newton", "duel"):
        lines[name] = _search(replace(request, optimizer=name), base, candidates, alone)
        print(f"{name}: {lines[name][-1]:.3f} after {len(lines[name])} evaluations")
    IMAGES.mkdir(exist_ok=True)
    (IMAGES / "search.svg").write_text(draw_lines(lines), encoding="utf-8")
    (IMAGES / "screening.svg").write_text(draw_bars(alone), encoding="utf-8")
    return 0


def _search(
    request: ComposeRequest,
    base: LoadedBase,
    candidates: list[LoraAdapter],
    alone: dict[str, float],
) -> list[float]:
    """Return the best fit loss so far after every evaluation but that of the base."""
    losses: list[float] = []

    def hear(event: Progress) -> None:
        if isinstance(event, EvaluationScored) and event.number:
            losses.append(event.fit_loss)

    rows = request.examples
    split = ExampleSplit(rows, (), tuple(range(len(rows))), ())
    find_weights(Work(request, split, hear, never), base, candidates, alone)
    return [float(loss) for loss in np.minimum.accumulate(losses)]


def draw_lines(lines: Mapping[str, Sequence[float]]) -> str:
    """Draw the best fit loss so far against the number of evaluations, one line a search."""
    top = max(max(losses) for losses in lines.values()) * 1.05
    longest = max(len(losses) for losses in lines.values())
    parts = []
    for i, (name, losses) in enumerate(lines.items()):
        points = " ".join(
            f"{_x(n / longest):.1f},{_y(loss / top):.1f}" for n, loss in enumerate(losses, start=1)
        )
        colour = COLOURS[i % len(COLOURS)]
        parts += [
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>',
            _text(
                LEFT + 2 + 118 * i + 12 * (i // 4),
                HEIGHT - BOTTOM - 8,
                f"{name}, {losses[-1]:.2f}",
                fill=colour,
            ),
        ]
    for tick in range(0, longest + 1, 10):
        parts.append(_text(_x(tick / longest) - 6, HEIGHT - 24, str(tick)))
    for step in range(5):
        parts.append(_text(8, _y(step / 4) + 4, f"{top * step / 4:.2f}"))
    title = "Best fit loss so far, against evaluations"
    return _svg(HEIGHT, title, parts)


def draw_bars(losses: Mapping[str, float]) -> str:
    """Draw the fit loss of every adapter alone, the best on top; the kept ones are darker."""
    ranked = sorted(losses.items(), key=lambda item: item[1])
    scale = (WIDTH - 260) / max(losses.values())
    parts = []
    for i, (name, loss) in enumerate(ranked):
        y = TOP + 12 + 18 * i
        colour = COLOURS[0] if i < CANDIDATES else "#8c959f"
        parts += [
            _text(170, y + 11, name, anchor="end"),
            f'<rect x="180" y="{y}" width="{loss * scale:.1f}" height="13" fill="{colour}"/>',
            _text(186 + loss * scale, y + 11, f"{loss:.2f}"),
        ]
    title = f"Fit loss of every adapter alone; the best {CANDIDATES} are searched"
    return _svg(TOP + 30 + 18 * len(ranked), title, parts)


def _text(x: float, y: float, text: str, *, anchor: str = "start", fill: str = "#57606a") -> str:
    place = f'x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" fill="{fill}"'
    return f"<text {place}>{escape(text)}</text>"


def _x(part: float) -> float:
    return LEFT + part * (WIDTH - LEFT - 16)


def _y(part: float) -> float:
    return HEIGHT - BOTTOM - part * (HEIGHT - BOTTOM - TOP)


def _svg(height: int, title: str, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif" font-size="12" fill="#57606a" role="img">'
    )
    frame = f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
    label = f'<title>{escape(title)}</title><text x="8" y="16">{escape(title)}</text>'
    return "\n".join([head, frame, label, *parts, "</svg>", ""])


if __name__ == "__main__":
    sys.exit(main())
