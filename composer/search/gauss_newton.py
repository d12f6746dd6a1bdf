"""`gauss-newton`: steps on a linear model of the answer logits.

`greedy+gn` takes greedy ones before, and `duel` lets two beginnings compete.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np
import torch

from composer.scoring import AnswerLogits, FloatArray
from composer.search.asking import Ask, Optimizer, SearchSettings, Told
from composer.search.greedy import greedy_steps

TRUST_RADIUS = 0.4
DIFFERENCE = 0.2
# Evaluations of a round beside one along each direction: the centre, and two steps to try.
ROUND_EXTRA = 3


@dataclass(frozen=True)
class _Place:
    """Where a search stands: its best weights and their loss, and what it may still spend."""

    weights: FloatArray  # (candidates,)
    loss: float
    left: int
    near: FloatArray | None = None  # what the weights are held near, if not by the settings


def gauss_newton(start: FloatArray, settings: SearchSettings) -> Optimizer:
    """Score all starts, then take Gauss-Newton steps from the best until none helps.

    The model is L(w + D s) = L(w) + sum_k s_k J_k at the answer positions, J by finite differences
    along the directions D: one population of forward passes, no backward pass. Its loss is
    minimised in a trust region and the step is taken only if the real loss falls. The first round
    moves the weights of all blocks together, the others each for itself.
    """
    starts = _list_starts(start, settings)
    near = starts if settings.prior_is_start else None
    told = yield Ask(starts, near=near)
    i = int(np.argmin(told.losses))
    place = _Place(starts[i], float(told.losses[i]), told.left, None if near is None else near[i])
    yield from _rounds(place, settings, apart=False)


def greedy_gauss_newton(start: FloatArray, settings: SearchSettings) -> Optimizer:
    """Search greedily for one round, then take Gauss-Newton steps."""
    told = yield Ask(start[None])
    best, told = yield from greedy_steps(start, told, settings, rounds=1)
    place = _Place(best, float(told.losses[0]), told.left)
    yield from _rounds(place, settings, apart=False)


def duel(start: FloatArray, settings: SearchSettings) -> Optimizer:
    """Let two beginnings compete, then take Gauss-Newton steps from the winner, block by block.

    One is a greedy round from `start`, the best single adapter, held near nothing: it wins where
    one adapter is nearly the task. The other is a Gauss-Newton round from the best of the other
    starts, means of several, held near it.
    """
    starts = _list_starts(start, settings)
    near = starts if settings.prior_is_start else None
    told = yield Ask(starts, near=near)
    losses, left = told.losses, told.left
    from_mean = None
    if len(losses) > 1:
        i = 1 + int(np.argmin(losses[1:]))
        place = _Place(starts[i], float(losses[i]), left, None if near is None else near[i])
        directions = settings.together(len(start))
        if _affords(place, directions):
            place, _ = yield from _step(place, directions, TRUST_RADIUS, settings)
        from_mean, left = place, place.left
    told = Told(losses[:1], left=left)
    if left:
        best, told = yield from greedy_steps(starts[0], told, settings, rounds=1)
        place = _Place(best, float(told.losses[0]), told.left)
        if from_mean is not None and from_mean.loss < place.loss:
            place = replace(from_mean, left=told.left)
        yield from _rounds(place, settings, apart=True)


def _list_starts(start: FloatArray, settings: SearchSettings) -> FloatArray:
    starts = np.array([start, *settings.more_starts])
    return starts.clip(-settings.weight_bound, settings.weight_bound)


def _affords(place: _Place, directions: FloatArray) -> bool:
    return place.left >= len(directions) + ROUND_EXTRA


def _rounds(place: _Place, settings: SearchSettings, *, apart: bool) -> Generator[Ask, Told, None]:
    """Take steps as long as they help and the budget holds a round.

    All move the blocks `apart`, or all but the first; where the budget holds no such round, all
    blocks move together.
    """
    radius, together = TRUST_RADIUS, settings.together(len(place.weights))
    directions = _apart(place.weights, settings) if apart else together
    while radius > TRUST_RADIUS / 8:
        if not _affords(place, directions):
            directions = together
        if not _affords(place, directions):
            return
        place, is_better = yield from _step(place, directions, radius, settings)
        finer = _apart(place.weights, settings)
        may_part = directions is together and settings.blocks > 1 and _affords(place, finer)
        if not is_better and not may_part:
            radius /= 2
        directions = finer


def _apart(weights: FloatArray, settings: SearchSettings) -> FloatArray:
    """Return directions that move one block of a candidate: of those with the largest weights."""
    n = len(weights) // settings.blocks
    single = np.eye(len(weights))
    if settings.blocks == 1:
        return single
    sizes = np.abs(weights.reshape(settings.blocks, n)).max(axis=0)
    largest = np.argsort(-sizes, kind="stable")[: settings.apart]
    return np.concatenate([single[block * n + largest] for block in range(settings.blocks)])


def _step(
    place: _Place, directions: FloatArray, radius: float, settings: SearchSettings
) -> Generator[Ask, Told, tuple[_Place, bool]]:
    """Take one step along the directions; tell whether the linear model's was better."""
    centre, near = place.weights, place.near
    lengths = _differences(centre, directions, settings.weight_bound)
    probes = centre + lengths[:, None] * directions
    told = yield Ask(np.concatenate([centre[None], probes]), logits=True, near=near)
    if told.logits is None:
        raise RuntimeError("Answer logits were asked for and not told.")
    best, loss = centre, min(place.loss, float(told.losses[0]))
    i = int(np.argmin(told.losses))
    if told.losses[i] < loss:
        best, loss = probes[i - 1], float(told.losses[i])
    model = _LinearModel(centre, directions, lengths, told.logits)
    steps = [model.minimise(settings, limit, near) for limit in (radius, radius / 2)]
    told = yield Ask(np.array(steps), near=near)
    i = int(np.argmin(told.losses))
    is_better = bool(told.losses[i] < loss)
    if is_better:
        best, loss = steps[i], float(told.losses[i])
    return _Place(best, loss, told.left, near), is_better


def _differences(centre: FloatArray, directions: FloatArray, bound: float) -> FloatArray:
    """Return one small step along each direction, turned inwards at the bound: (directions,)."""
    outside = ((centre + DIFFERENCE * directions) > bound).any(axis=1)
    return np.where(outside, -DIFFERENCE, DIFFERENCE)


class _LinearModel:
    """Logits at the answer positions as a linear function of the weights.

    The likeliest tokens of each position move; all others keep their joint probability mass.
    """

    def __init__(
        self,
        centre: FloatArray,
        directions: FloatArray,
        lengths: FloatArray,
        answers: AnswerLogits,
    ) -> None:
        self._centre, self._directions = centre, directions
        steps = torch.tensor(lengths, dtype=torch.float32, device=answers.logits.device)
        self._origin = answers.logits[0]  # (positions, tokens)
        self._slopes = (answers.logits[1:] - self._origin) / steps[:, None, None]
        self._others = answers.others[:, None]  # (positions, 1)
        self._weights = _position_weights(answers.row)

    def loss(self, step: torch.Tensor) -> torch.Tensor:
        """Return the mean over rows of the mean loss per answer token."""
        moved = self._origin + torch.einsum("n,npk->pk", step, self._slopes)
        every = torch.cat([moved, self._others], dim=1)
        return ((every.logsumexp(dim=-1) - moved[:, 0]) * self._weights).sum()

    def minimise(
        self, settings: SearchSettings, limit: float, near: FloatArray | None = None
    ) -> FloatArray:
        """Return the best weights at most `limit` away along each direction.

        It descends by projected Adam on as many numbers; the base model is not involved.
        """
        low, high = self._bounds(settings.weight_bound, limit)
        device = self._origin.device
        at = torch.tensor(self._centre, dtype=torch.float32, device=device)
        directions = torch.tensor(self._directions, dtype=torch.float32, device=device)
        bounds = [torch.tensor(item, dtype=torch.float32, device=device) for item in (low, high)]
        step = torch.zeros(len(directions), device=device, requires_grad=True)
        adam = torch.optim.Adam([step], lr=float((high - low).max()) / 20 or 1e-3)
        with torch.enable_grad():
            for _ in range(60):
                adam.zero_grad()
                objective = self.loss(step) + _penalty(at + step @ directions, settings, near)
                objective.backward()
                adam.step()
                with torch.no_grad():
                    step.clamp_(*bounds)
        # Logits that are no numbers give no step.
        found = np.nan_to_num(step.detach().double().cpu().numpy())
        return np.asarray(self._centre + found @ self._directions)

    def _bounds(self, bound: float, limit: float) -> tuple[FloatArray, FloatArray]:
        """Return how far each direction may be gone, backwards and forwards: both (directions,)."""
        touched = self._directions != 0
        low = np.where(touched, -bound - self._centre, -np.inf).max(axis=1)
        high = np.where(touched, bound - self._centre, np.inf).min(axis=1)
        return np.maximum(-limit, low), np.minimum(limit, high)


def _penalty(
    w: torch.Tensor, settings: SearchSettings, near: FloatArray | None
) -> torch.Tensor | float:
    """Return what `SearchSettings.penalties` does, as something to differentiate."""
    prior = near if near is not None else settings.prior
    if prior is not None:
        away = w - torch.tensor(prior, dtype=w.dtype, device=w.device)
        return settings.prior_penalty / settings.blocks * (away**2).sum()
    return 0.0 if settings.prior_is_start else settings.l1_penalty * w.abs().mean()


def _position_weights(row: torch.Tensor) -> torch.Tensor:
    """Weigh positions so that a weighted sum is the mean over rows of the mean per token."""
    counts = torch.bincount(row)
    rows = int((counts > 0).sum())
    return 1.0 / (counts[row] * rows)
