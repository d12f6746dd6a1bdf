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
    a `prior` `prior_penalty * sum_i (w_i - prior_i)^2 / blocks` in its place. The prior may be left
    to the optimiser, which then says beside each question what the weights are held near.
    """

    optimizer: str
    budget: int
    seed: int
    weight_bound: float = 1.5
    l1_penalty: float = 0.05
    start: tuple[float, ...] | None = None
    # Other places where gauss-newton may start: it scores them all and goes on from the best.
    more_starts: tuple[tuple[float, ...], ...] = ()
    # The weights are those of so many blocks of layers, block by block; gauss-newton moves all
    # blocks' weights of a candidate together first.
    blocks: int = 1
    # Only so many candidates, those with the largest weights, are weighed apart in them; None: all.
    apart: int | None = None
    # Candidates that nevergrad is asked for at once.
    num_workers: int = 1
    prior: tuple[float, ...] | None = None
    prior_penalty: float = 0.05
    # gauss-newton's choice among the starts is the prior.
    prior_is_start: bool = False

    def together(self, n_weights: int) -> FloatArray:
        """Return directions that move a candidate in all blocks: (candidates, weights)."""
        return np.tile(np.eye(n_weights // self.blocks), self.blocks)

    def penalties(self, weights: FloatArray, near: FloatArray | None = None) -> FloatArray:
        """Return the penalty of each weight vector: (..., candidates) -> (...)."""
        if near is None and self.prior is not None:
            near = np.array(self.prior)
        if near is None:
            return l1_penalty(weights, 0.0 if self.prior_is_start else self.l1_penalty)
        squares = (weights - near) ** 2
        return np.asarray(self.prior_penalty / self.blocks * squares.sum(axis=-1))


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
    near: FloatArray | None = None  # what each is held near, (candidates,) or like `weights`


@dataclass(frozen=True)
class Told:
    """The answer to an `Ask`, in its order."""

    losses: FloatArray  # (vectors,), penalty included
    logits: AnswerLogits | None = None
    left: int = 0  # evaluations that the budget still holds


# An optimiser asks for populations and is told their losses; its return ends the search.
Optimizer = Generator[Ask, Told, None]
