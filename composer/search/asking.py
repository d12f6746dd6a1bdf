"""The words between a search and its optimisers: ask for a population, be told its losses."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from composer.scoring import AnswerLogits, FloatArray, l1_penalty


class Objective(Protocol):
    """What is minimised: the fit rows under the stacked candidates."""

    def losses(self, weights: FloatArray) -> FloatArray:
        """Return the fit loss of each weight vector, (vectors,)."""

    def answer_logits(self, weights: FloatArray) -> AnswerLogits:
        """Return the losses of the rows and the logits at the answer positions."""


@dataclass(frozen=True)
class SearchSettings:
    """How to search; `budget` counts evaluations beside number 0, the base alone.

    What is minimised is the fit loss and a penalty: LoraHub's `l1_penalty * mean_i |w_i|`, or with
    a `prior` `prior_penalty * sum_i (w_i - prior_i)^2` in its place.
    """

    optimizer: str
    budget: int
    seed: int
    weight_bound: float = 1.5
    l1_penalty: float = 0.05
    start: tuple[float, ...] | None = None
    # Candidates that nevergrad is asked for at once.
    num_workers: int = 1
    prior: tuple[float, ...] | None = None
    prior_penalty: float = 0.05

    def penalties(self, weights: FloatArray) -> FloatArray:
        """Return the penalty of each weight vector: (..., candidates) -> (...)."""
        if self.prior is None:
            return l1_penalty(weights, self.l1_penalty)
        squares = (weights - np.array(self.prior)) ** 2
        return np.asarray(self.prior_penalty * squares.sum(axis=-1))


@dataclass(frozen=True)
class Evaluation:
    """One scored weight vector; `loss` includes the penalty, `fit_loss` does not."""

    number: int
    weights: tuple[float, ...]
    loss: float
    fit_loss: float


@dataclass(frozen=True)
class Ask:
    """A population to score; with `logits`, its answer logits are wanted as well."""

    weights: FloatArray  # (vectors, candidates)
    logits: bool = False


@dataclass(frozen=True)
class Told:
    """The answer to an `Ask`, in its order."""

    losses: FloatArray  # (vectors,), penalty included
    logits: AnswerLogits | None = None


# An optimiser asks for populations and is told their losses; its return ends the search.
Optimizer = Generator[Ask, Told, None]
