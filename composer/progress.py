"""What a running composition reports: one small frozen dataclass an event.

The union `Progress` is all that a caller of `compose` has to know to draw a progress bar, a chart
or a log. A loss that is no number is told as 10,000, so every event can be stored and compared. How
the events are stored or shown is left to the caller; nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Phase = Literal[
    "loading",
    "screening",
    "searching",
    "training",
    "merging",
    "validating",
    "scoring",
    "writing",
]


@dataclass(frozen=True)
class PhaseStarted:
    """A part of the work begins; `total` counts its steps, if known."""

    phase: Phase
    message: str
    total: int | None = None


@dataclass(frozen=True)
class CandidateScored:
    """Screening scored one pool member alone on the fit rows."""

    name: str
    loss: float
    done: int
    total: int


@dataclass(frozen=True)
class EvaluationScored:
    """The search scored one weight vector; number 0 is the base alone.

    `loss` includes the penalty on the weights, `fit_loss` does not.
    """

    number: int
    budget: int
    weights: tuple[float, ...]
    loss: float
    fit_loss: float
    is_best: bool


@dataclass(frozen=True)
class TrainingStepped:
    """The quick LoRA has taken `done` of `total` steps; `loss` is what the last started from."""

    done: int
    total: int
    loss: float


@dataclass(frozen=True)
class ReferenceScored:
    """The fit loss of what the search is compared with."""

    method: Literal["base", "best_single", "uniform"]
    fit_loss: float


@dataclass(frozen=True)
class AnswersScored:
    """The report has answered `done` of `total` rows with one method."""

    method: str
    done: int
    total: int


@dataclass(frozen=True)
class LogLine:
    """A remark worth keeping, in plain words."""

    text: str


Progress = (
    PhaseStarted
    | CandidateScored
    | EvaluationScored
    | TrainingStepped
    | ReferenceScored
    | AnswersScored
    | LogLine
)
OnProgress = Callable[[Progress], None]
ShouldStop = Callable[[], bool]


def ignore(event: Progress) -> None:
    """Take no notice of an event."""


def never() -> bool:
    """Never ask the work to stop."""
    return False
