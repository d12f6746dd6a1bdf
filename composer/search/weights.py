"""The loop of a search: who asks is an optimiser, who answers the objective, who keeps the disk."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import overload

import numpy as np

from composer.errors import SearchError, Stopped
from composer.progress import ShouldStop, never
from composer.scoring import FloatArray
from composer.search.asking import Ask, Evaluation, Objective, Optimizer, SearchSettings, Told
from composer.search.checkpoint import read_checkpoint, write_checkpoint
from composer.search.gauss_newton import duel, gauss_newton, greedy_gauss_newton
from composer.search.greedy import greedy
from composer.search.nevergrad_optimizers import drive_nevergrad

_OWN = {
    "duel": duel,
    "gauss-newton": gauss_newton,
    "greedy+gn": greedy_gauss_newton,
    "greedy": greedy,
}

# A loss that is not a number must never look good, and must not break an optimiser's arithmetic.
WORST_LOSS = 1e4


class WeightSearch:
    """One search; iterate `evaluations()`, then read `best` and `optimizer_resolved`.

    With a `checkpoint` every scored population is on disk before it is yielded. A later search with
    the same settings replays it: the optimiser, being deterministic, asks the same questions again
    and gets the stored answers, so the result is that of an undisturbed run.
    """

    def __init__(
        self,
        objective: Objective,
        n_candidates: int,
        settings: SearchSettings,
        *,
        checkpoint: Path | None = None,
        fingerprint: str = "",
        should_stop: ShouldStop = never,
    ) -> None:
        if settings.budget < 1:
            message = f"The budget must be at least 1 evaluation, not {settings.budget}."
            raise SearchError(message)
        self.optimizer_resolved = settings.optimizer
        self.history: list[Evaluation] = []
        self._objective = objective
        self._n = n_candidates
        self._settings = settings
        self._should_stop = should_stop
        self._checkpoint = checkpoint
        self._fingerprint = f"{fingerprint}|{n_candidates}|{settings}"
        self._stored = read_checkpoint(checkpoint, self._fingerprint) if checkpoint else []

    @property
    def best(self) -> Evaluation:
        """Return the evaluation with the lowest loss; of equals, the first."""
        return min(self.history, key=lambda evaluation: (evaluation.loss, evaluation.number))

    def evaluations(self) -> Iterator[Evaluation]:
        """Score weight vectors until the budget is spent, the base alone first.

        Raises:
            Stopped: before the next population, if the caller asked to stop.
            SearchError: if not a single evaluation had a loss that is a number.
        """
        yield from self._score(Ask(np.zeros((1, self._n))))[1]
        optimizer = self._optimizer()
        try:
            ask = next(optimizer)
            while len(self.history) <= self._settings.budget:
                left = self._settings.budget + 1 - len(self.history)
                ask = _first(ask, left)
                told, scored = self._score(ask)
                yield from scored
                ask = optimizer.send(told)
        except StopIteration:
            pass
        finally:
            optimizer.close()
        if all(evaluation.fit_loss >= WORST_LOSS for evaluation in self.history):
            message = (
                "No weights gave a loss that is a number. Check the adapters and the examples."
            )
            raise SearchError(message)

    def _score(self, ask: Ask) -> tuple[Told, list[Evaluation]]:
        stored = self._replayed(ask.weights)
        if stored is None and self._should_stop():
            raise Stopped("Stopped by request.")
        logits = self._objective.answer_logits(ask.weights) if ask.logits else None
        if stored is not None:
            fit = stored
        elif logits is not None:
            fit = finite_losses(logits.losses.mean(axis=1))
        else:
            fit = finite_losses(self._objective.losses(ask.weights))
        losses = fit + self._settings.penalties(ask.weights, ask.near)
        first = len(self.history)
        scored = [
            Evaluation(first + i, tuple(map(float, w)), float(losses[i]), float(fit[i]))
            for i, w in enumerate(ask.weights)
        ]
        self.history.extend(scored)
        if stored is None and self._checkpoint:
            write_checkpoint(self._checkpoint, self._fingerprint, self.history)
        return Told(losses, logits, self._settings.budget + 1 - len(self.history)), scored

    def _replayed(self, weights: FloatArray) -> FloatArray | None:
        """Return stored losses if the checkpoint holds exactly these vectors next."""
        first = len(self.history)
        stored = self._stored[first : first + len(weights)]
        if len(stored) < len(weights):
            return None
        known = np.array([evaluation.weights for evaluation in stored])
        if not np.allclose(known, weights, rtol=0, atol=1e-9):
            # Another machine rounds differently: from here on the search is a fresh one.
            self._stored = []
            return None
        return np.array([evaluation.fit_loss for evaluation in stored])

    def _optimizer(self) -> Optimizer:
        settings = self._settings
        start = np.array(settings.start if settings.start is not None else [0.0] * self._n)
        start = start.clip(-settings.weight_bound, settings.weight_bound)
        own = _OWN.get(settings.optimizer)
        if own is not None:
            return own(start, settings)
        return drive_nevergrad(start, settings, self._note_choice)

    def _note_choice(self, name: str) -> None:
        self.optimizer_resolved = name


def _first(ask: Ask, count: int) -> Ask:
    """Cut a population short."""
    near = ask.near
    if near is not None and near.ndim > 1:
        near = near[:count]
    return replace(ask, weights=ask.weights[:count], near=near)


@overload
def finite_losses(losses: float) -> float: ...
@overload
def finite_losses(losses: FloatArray) -> FloatArray: ...
def finite_losses(losses: float | FloatArray) -> float | FloatArray:
    """Return losses that can be compared, told and stored: `WORST_LOSS` for what is no number."""
    if isinstance(losses, float):
        return min(losses, WORST_LOSS) if math.isfinite(losses) else WORST_LOSS
    return np.where(np.isfinite(losses), np.minimum(losses, WORST_LOSS), WORST_LOSS)
