"""`greedy`: step along all axes at once and keep the best, halving the step when none helps.

Weights of several blocks of layers move together.
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from composer.scoring import FloatArray
from composer.search.asking import Ask, Optimizer, SearchSettings, Told

GREEDY_STEP = 0.5
SMALLEST_STEP = 0.05


def greedy(start: FloatArray, settings: SearchSettings) -> Optimizer:
    """Step along all axes at once: keep the best of w + d e_i, then of w - d e_i; halve d."""
    told = yield Ask(start[None])
    yield from greedy_steps(start, told, settings)


def greedy_steps(
    best: FloatArray, told: Told, settings: SearchSettings, rounds: int | None = None
) -> Generator[Ask, Told, tuple[FloatArray, Told]]:
    """Take the steps from a scored vector, at most `rounds` of them.

    Return where they end, and its loss with what the budget still holds.
    """
    best_loss = float(told.losses[0])
    step, turn = GREEDY_STEP, 0
    while step >= SMALLEST_STEP and (rounds is None or turn < rounds):
        improved = False
        for sign in (1.0, -1.0):
            moved = best + sign * step * settings.together(len(best))
            population = _distinct(moved.clip(-settings.weight_bound, settings.weight_bound), best)
            if not len(population):
                continue
            told = yield Ask(population)
            i = int(np.argmin(told.losses))
            if told.losses[i] < best_loss:
                best, best_loss, improved = population[i], float(told.losses[i]), True
        turn += 1
        if not improved:
            step /= 2
    return best, Told(np.array([best_loss]), left=told.left)


def _distinct(population: FloatArray, centre: FloatArray) -> FloatArray:
    """Leave out vectors that the bounds pushed back to where we are."""
    moved = (np.abs(population - centre) > 1e-12).any(axis=1)  # noqa: PLR2004 - rounding
    return population[moved]
