"""How sure a figure is: intervals of a mean over rows, and whether two methods differ.

The interval is the percentile bootstrap over rows (Efron 1979). Where resampling cannot move, since
every row is right or every row is wrong, Wilson's interval (1927) stands in: docs/decisions/0011.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

Interval = tuple[float, float]
IntervalKind = Literal["bootstrap", "wilson"]

Z95 = 1.959963984540054
RESAMPLES = 2000


def share_interval(values: Sequence[float]) -> tuple[Interval, IntervalKind]:
    """Return the 95 % interval of the mean of values between 0 and 1, and how it was made."""
    n, total = len(values), sum(values)
    if n < 2 or all(value == values[0] for value in values):  # noqa: PLR2004 - nothing to draw
        return wilson_interval(total, n), "wilson"
    return bootstrap_interval(values), "bootstrap"


def loss_interval(losses: Sequence[float]) -> Interval | None:
    """Return the 95 % bootstrap interval of a mean loss; None for one row or no numbers."""
    if len(losses) < 2 or not all(math.isfinite(loss) for loss in losses):  # noqa: PLR2004
        return None
    return bootstrap_interval(losses)


def wilson_interval(correct: float, n: int) -> Interval:
    """Return the 95 % Wilson interval of a share, 0 to 1 (Wilson 1927)."""
    if n == 0:
        return (0.0, 1.0)
    share, z2 = correct / n, Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return (max(0.0, centre - half), min(1.0, centre + half))


def bootstrap_interval(values: Sequence[float], *, seed: int = 0) -> Interval:
    """Return the 95 % percentile bootstrap interval of a mean; the same for the same values.

    Raises:
        ValueError: there are no values.
    """
    import numpy as np  # noqa: PLC0415 - the site reads reports and makes none

    draw = np.random.default_rng(seed)
    rows = draw.integers(len(values), size=(RESAMPLES, len(values)))
    means = np.asarray(values, dtype=float)[rows].mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return (float(low), float(high))


def paired_p_value(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the two-sided p-value of the exact sign test on rows where the two differ.

    On right and wrong answers this is the exact McNemar test (1947).
    """
    wins = sum(a > b for a, b in zip(first, second, strict=True))
    losses = sum(a < b for a, b in zip(first, second, strict=True))
    n, low = wins + losses, min(wins, losses)
    if n == 0:
        return 1.0
    tail = sum(math.comb(n, k) for k in range(low + 1)) / 2**n
    return min(1.0, float(2 * tail))
