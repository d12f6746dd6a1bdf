"""The honest comparison: base, best single, uniform mean and the composition on the same rows.

Holds the figures of every method on fit and held-out rows, their intervals, the exact paired test
against the best single adapter and a verdict in plain words, which may well be that composing did
not help. Answers and losses come from `composer.scoring`; drawing is left to the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Method = Literal["base", "prompting", "uniform", "best_single", "composed"]
Metric = Literal["exact_match", "rougeL"]


@dataclass(frozen=True)
class Score:
    """One method on one set of rows; `score` lies in 0 to 1, `interval` is its 95 % interval.

    `correct` counts exact matches and is None where the metric is ROUGE-L. `loss` is the mean over
    rows of the mean loss per answer token, in nats.
    """

    n: int
    correct: int | None
    score: float
    interval: tuple[float, float]
    loss: float | None


@dataclass(frozen=True)
class ReportRow:
    """One method; `held_out` is None where every row was used for fitting."""

    method: Method
    label: str
    fit: Score
    held_out: Score | None


@dataclass(frozen=True)
class Verdict:
    """What the figures allow to say; `p_value` is None where nothing was held out."""

    headline: str
    detail: str
    winner: Method
    p_value: float | None


@dataclass(frozen=True)
class RowAnswers:
    """What every method answered to one row."""

    input: str
    expected: str
    split: Literal["fit", "held_out"]
    answers: Mapping[str, str]
    correct: Mapping[str, bool]


@dataclass(frozen=True)
class Report:
    """All figures of one composition."""

    rows: tuple[ReportRow, ...]
    metric: Metric
    n_fit: int
    n_held_out: int
    verdict: Verdict
    answers: tuple[RowAnswers, ...] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return asdict(self)
