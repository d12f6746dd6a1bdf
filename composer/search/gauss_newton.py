"""`gauss-newton`: steps on a linear model of the answer logits; `greedy+gn`: greedy ones before."""

from __future__ import annotations

import numpy as np
import torch

from composer.scoring import AnswerLogits, FloatArray
from composer.search.asking import Ask, Optimizer, SearchSettings
from composer.search.greedy import greedy_steps

TRUST_RADIUS = 0.4
DIFFERENCE = 0.2


def gauss_newton(start: FloatArray, settings: SearchSettings) -> Optimizer:
    """Take Gauss-Newton steps from the start until none helps.

    The model is L(w + d) = L(w) + sum_i d_i J_i at the answer positions, J by finite differences:
    one population of forward passes, no backward pass. Its loss is minimised in a trust region and
    the step is taken only if the real loss falls.
    """
    yield from _gauss_newton_rounds(start, np.inf, settings)


def greedy_gauss_newton(start: FloatArray, settings: SearchSettings) -> Optimizer:
    """Search greedily for one round, then take Gauss-Newton steps."""
    told = yield Ask(start[None])
    best, best_loss = start, float(told.losses[0])
    best, best_loss = yield from greedy_steps(best, best_loss, settings, rounds=1)
    yield from _gauss_newton_rounds(best, best_loss, settings)


def _gauss_newton_rounds(best: FloatArray, best_loss: float, settings: SearchSettings) -> Optimizer:
    radius = TRUST_RADIUS
    while radius > TRUST_RADIUS / 8:
        probes = best + _differences(best, settings.weight_bound)
        told = yield Ask(np.concatenate([best[None], probes]), logits=True)
        if told.logits is None or len(told.losses) < len(best) + 1:
            return  # the budget cut the population short
        i = int(np.argmin(told.losses))
        centre = best
        best_loss = min(best_loss, float(told.losses[0]))
        if told.losses[i] < best_loss:
            best, best_loss = probes[i - 1], float(told.losses[i])
        proposals = _gauss_newton_steps(centre, probes, told.logits, settings, radius)
        told = yield Ask(proposals)
        i = int(np.argmin(told.losses))
        if told.losses[i] < best_loss:
            best, best_loss = proposals[i], float(told.losses[i])
        else:
            radius /= 2


def _differences(centre: FloatArray, bound: float) -> FloatArray:
    """Return one small step along each axis, turned inwards at the bound: a square matrix."""
    signs = np.where(centre + DIFFERENCE > bound, -1.0, 1.0)
    return np.diag(signs * DIFFERENCE)


def _gauss_newton_steps(
    centre: FloatArray,
    probes: FloatArray,
    answers: AnswerLogits,
    settings: SearchSettings,
    radius: float,
) -> FloatArray:
    """Minimise the linear model's loss inside trust regions of radius and half of it."""
    model = _LinearModel(centre, probes, answers)
    steps = []
    for limit in (radius, radius / 2):
        low = np.maximum(-limit, -settings.weight_bound - centre)
        high = np.minimum(limit, settings.weight_bound - centre)
        steps.append(centre + model.minimise(centre, low, high, settings))
    return np.array(steps)


class _LinearModel:
    """Logits at the answer positions as a linear function of the weights.

    The likeliest tokens of each position move; all others keep their joint probability mass.
    """

    def __init__(self, centre: FloatArray, probes: FloatArray, answers: AnswerLogits) -> None:
        lengths = torch.tensor(np.diagonal(probes - centre).copy(), dtype=torch.float32)
        lengths = lengths.to(answers.logits.device)
        self._origin = answers.logits[0]  # (positions, tokens)
        self._slopes = (answers.logits[1:] - self._origin) / lengths[:, None, None]
        self._others = answers.others[:, None]  # (positions, 1)
        self._weights = _position_weights(answers.row)

    def loss(self, step: torch.Tensor) -> torch.Tensor:
        """Return the mean over rows of the mean loss per answer token."""
        moved = self._origin + torch.einsum("n,npk->pk", step, self._slopes)
        every = torch.cat([moved, self._others], dim=1)
        return ((every.logsumexp(dim=-1) - moved[:, 0]) * self._weights).sum()

    def minimise(
        self, centre: FloatArray, low: FloatArray, high: FloatArray, settings: SearchSettings
    ) -> FloatArray:
        """Descend by projected Adam on N numbers; the base model is not involved."""
        device = self._origin.device
        at = torch.tensor(centre, dtype=torch.float32, device=device)
        bounds = [torch.tensor(item, dtype=torch.float32, device=device) for item in (low, high)]
        step = torch.zeros(len(centre), device=device, requires_grad=True)
        adam = torch.optim.Adam([step], lr=float((high - low).max()) / 20 or 1e-3)
        with torch.enable_grad():
            for _ in range(60):
                adam.zero_grad()
                objective = self.loss(step) + _penalty(at + step, settings)
                objective.backward()
                adam.step()
                with torch.no_grad():
                    step.clamp_(*bounds)
        # Logits that are no numbers give no step.
        return np.asarray(np.nan_to_num(step.detach().double().cpu().numpy()))


def _penalty(w: torch.Tensor, settings: SearchSettings) -> torch.Tensor:
    """Return what `SearchSettings.penalties` does, as something to differentiate."""
    if settings.prior is None:
        return settings.l1_penalty * w.abs().mean()
    prior = torch.tensor(settings.prior, dtype=w.dtype, device=w.device)
    return settings.prior_penalty * ((w - prior) ** 2).sum()


def _position_weights(row: torch.Tensor) -> torch.Tensor:
    """Weigh positions so that a weighted sum is the mean over rows of the mean per token."""
    counts = torch.bincount(row)
    rows = int((counts > 0).sum())
    return 1.0 / (counts[row] * rows)
