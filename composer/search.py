"""The ask/tell search for the weights of the candidates, with checkpoint and resume.

`search_weights` yields one `Evaluation` after the other; the caller shows them, stops, or goes on.
Optimisers are nevergrad's by name and two of our own: `greedy` and `greedy+gn`, which ask for whole
populations. How weights are scored is the caller's `Objective`.
"""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import nevergrad as ng
import numpy as np
import torch

from composer.errors import SearchError, Stopped, StorageFull
from composer.progress import ShouldStop, never
from composer.scoring import FloatArray, Labels, l1_penalty

OWN_OPTIMIZERS = ("greedy", "greedy+gn")
# A loss that is not a number must never look good, and must not break an optimiser's arithmetic.
WORST_LOSS = 1e4

GREEDY_STEP = 0.5
SMALLEST_STEP = 0.05
TRUST_RADIUS = 0.4
DIFFERENCE = 0.2
KEPT_TOKENS = 512


class Objective(Protocol):
    """What is minimised: the fit rows under the stacked candidates."""

    def losses(self, weights: FloatArray) -> FloatArray:
        """Return the fit loss of each weight vector, (vectors,)."""

    def answer_logits(self, weights: FloatArray) -> list[tuple[torch.Tensor, Labels]]:
        """Return the logits at the answer positions under each weight vector."""


@dataclass(frozen=True)
class SearchSettings:
    """How to search; `budget` counts evaluations beside number 0, the base alone."""

    optimizer: str
    budget: int
    seed: int
    weight_bound: float = 1.5
    l1_penalty: float = 0.05
    start: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Evaluation:
    """One scored weight vector; `loss` includes the penalty, `fit_loss` does not."""

    number: int
    weights: tuple[float, ...]
    loss: float
    fit_loss: float


@dataclass(frozen=True)
class _Ask:
    """A population to score; with `logits`, its answer logits are wanted as well."""

    weights: FloatArray  # (vectors, candidates)
    logits: bool = False


@dataclass(frozen=True)
class _Told:
    losses: FloatArray  # (vectors,), penalty included
    logits: list[tuple[torch.Tensor, Labels]] | None = None


# An optimiser asks for populations and is told their losses; its return ends the search.
_Optimizer = Generator[_Ask, _Told, None]


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
        self._stored = _read_checkpoint(checkpoint, self._fingerprint) if checkpoint else []

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
        yield from self._score(_Ask(np.zeros((1, self._n))))[1]
        optimizer = self._optimizer()
        try:
            ask = next(optimizer)
            while len(self.history) <= self._settings.budget:
                left = self._settings.budget + 1 - len(self.history)
                ask = _Ask(ask.weights[:left], ask.logits)
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

    def _score(self, ask: _Ask) -> tuple[_Told, list[Evaluation]]:
        stored = self._replayed(ask.weights)
        if stored is None:
            if self._should_stop():
                raise Stopped("Stopped by request.")
            fit = _finite(self._objective.losses(ask.weights))
        else:
            fit = stored
        losses = fit + l1_penalty(ask.weights, self._settings.l1_penalty)
        first = len(self.history)
        scored = [
            Evaluation(first + i, tuple(map(float, w)), float(losses[i]), float(fit[i]))
            for i, w in enumerate(ask.weights)
        ]
        self.history.extend(scored)
        if stored is None and self._checkpoint:
            _write_checkpoint(self._checkpoint, self._fingerprint, self.history)
        logits = self._objective.answer_logits(ask.weights) if ask.logits else None
        return _Told(losses, logits), scored

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

    def _optimizer(self) -> _Optimizer:
        settings = self._settings
        start = np.array(settings.start if settings.start is not None else [0.0] * self._n)
        start = start.clip(-settings.weight_bound, settings.weight_bound)
        if settings.optimizer == "greedy":
            return _greedy(start, settings)
        if settings.optimizer == "greedy+gn":
            return _greedy_gauss_newton(start, settings)
        return self._nevergrad(start)

    def _nevergrad(self, start: FloatArray) -> _Optimizer:
        """Drive one of nevergrad's optimisers, one vector at a time."""
        settings = self._settings
        optimizer = _nevergrad_optimizer(start, settings)
        while True:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                candidate = optimizer.ask()
            # Only now does NGOpt know what it chose.
            self.optimizer_resolved = _resolved_name(optimizer, settings.optimizer)
            told = yield _Ask(np.asarray(candidate.value, dtype=np.float64)[None])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                optimizer.tell(candidate, float(told.losses[0]))


def optimizer_names() -> tuple[str, ...]:
    """Return every name a search accepts."""
    return (*OWN_OPTIMIZERS, *sorted(ng.optimizers.registry))


def require_optimizer(name: str) -> None:
    """Refuse an unknown optimiser before anything is loaded."""
    if name not in OWN_OPTIMIZERS and name not in ng.optimizers.registry:
        message = (
            f"There is no optimiser called {name!r}. "
            "Choose greedy+gn, greedy, NGOpt, CMA, DE, PSO, OnePlusOne or another of nevergrad's."
        )
        raise SearchError(message)


def _greedy(start: FloatArray, settings: SearchSettings) -> _Optimizer:
    """Step along all axes at once: keep the best of w + d e_i, then of w - d e_i; halve d."""
    told = yield _Ask(start[None])
    yield from _greedy_steps(start, float(told.losses[0]), settings)


def _greedy_steps(
    best: FloatArray, best_loss: float, settings: SearchSettings, rounds: int | None = None
) -> Generator[_Ask, _Told, tuple[FloatArray, float]]:
    step, turn = GREEDY_STEP, 0
    while step >= SMALLEST_STEP and (rounds is None or turn < rounds):
        improved = False
        for sign in (1.0, -1.0):
            moved = best + sign * step * np.eye(len(best))
            population = _distinct(moved.clip(-settings.weight_bound, settings.weight_bound), best)
            if not len(population):
                continue
            told = yield _Ask(population)
            i = int(np.argmin(told.losses))
            if told.losses[i] < best_loss:
                best, best_loss, improved = population[i], float(told.losses[i]), True
        turn += 1
        if not improved:
            step /= 2
    return best, best_loss


def _greedy_gauss_newton(start: FloatArray, settings: SearchSettings) -> _Optimizer:
    """Search greedily for one round, then step on a linear model of the answer logits, then go on.

    The model is L(w + d) = L(w) + sum_i d_i J_i at the answer positions, J by finite differences:
    one population of forward passes, no backward pass. Its loss is minimised in a trust region and
    the step is taken only if the real loss falls.
    """
    told = yield _Ask(start[None])
    best, best_loss = start, float(told.losses[0])
    best, best_loss = yield from _greedy_steps(best, best_loss, settings, rounds=1)
    radius = TRUST_RADIUS
    while radius > TRUST_RADIUS / 8:
        probes = best + _differences(best, settings.weight_bound)
        told = yield _Ask(np.concatenate([best[None], probes]), logits=True)
        if told.logits is None or len(told.logits) < len(best) + 1:
            return
        i = int(np.argmin(told.losses))
        centre, best_here = best, float(told.losses[0])
        if told.losses[i] < min(best_loss, best_here):
            best, best_loss = probes[i - 1], float(told.losses[i])
        proposals = _gauss_newton_steps(centre, probes, told.logits, settings, radius)
        told = yield _Ask(proposals)
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
    logits: list[tuple[torch.Tensor, Labels]],
    settings: SearchSettings,
    radius: float,
) -> FloatArray:
    """Minimise the linear model's loss inside trust regions of radius and half of it."""
    model = _LinearModel(centre, probes, logits)
    steps = []
    for limit in (radius, radius / 2):
        low = np.maximum(-limit, -settings.weight_bound - centre)
        high = np.minimum(limit, settings.weight_bound - centre)
        steps.append(centre + model.minimise(centre, low, high, settings.l1_penalty))
    return np.array(steps)


class _LinearModel:
    """Logits at the answer positions as a linear function of the weights.

    Only the `KEPT_TOKENS` likeliest tokens of each position move; the others keep their joint
    probability mass, which saves memory on large vocabularies.
    """

    def __init__(
        self, centre: FloatArray, probes: FloatArray, logits: list[tuple[torch.Tensor, Labels]]
    ) -> None:
        here, labels = logits[0]  # (positions, vocabulary)
        kept = min(KEPT_TOKENS, here.shape[1] - 1)
        index = here.topk(kept, dim=-1).indices
        index = torch.cat([labels.tokens[:, None], index], dim=1)
        duplicate = index[:, 1:] == labels.tokens[:, None]
        self._origin = here.gather(1, index)  # (positions, kept + 1)
        lengths = torch.tensor(
            probes[range(len(probes)), range(len(probes))] - centre, dtype=here.dtype
        ).to(here.device)
        moved = torch.stack([item.gather(1, index) for item, _ in logits[1:]])
        self._slopes = (moved - self._origin) / lengths[:, None, None]
        self._hidden = torch.zeros_like(self._origin)
        self._hidden[:, 1:][duplicate] = -torch.inf
        rest = here.scatter(1, index, -torch.inf).logsumexp(dim=-1, keepdim=True)
        self._rest = rest  # (positions, 1)
        self._weights = _position_weights(labels)

    def loss(self, step: torch.Tensor) -> torch.Tensor:
        """Return the mean over rows of the mean loss per answer token."""
        moved = self._origin + torch.einsum("n,npk->pk", step, self._slopes) + self._hidden
        every = torch.cat([moved, self._rest], dim=1)
        return ((every.logsumexp(dim=-1) - moved[:, 0]) * self._weights).sum()

    def minimise(
        self, centre: FloatArray, low: FloatArray, high: FloatArray, l1: float
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
                objective = self.loss(step) + l1 * (at + step).abs().mean()
                objective.backward()
                adam.step()
                with torch.no_grad():
                    step.clamp_(*bounds)
        return np.asarray(step.detach().double().cpu().numpy())


def _position_weights(labels: Labels) -> torch.Tensor:
    """Weigh positions so that a weighted sum is the mean over rows of the mean per token."""
    counts = torch.bincount(labels.row)
    rows = int((counts > 0).sum())
    return 1.0 / (counts[labels.row] * rows)


def _distinct(population: FloatArray, centre: FloatArray) -> FloatArray:
    """Leave out vectors that the bounds pushed back to where we are."""
    moved = (np.abs(population - centre) > 1e-12).any(axis=1)  # noqa: PLR2004 - rounding
    return population[moved]


def _nevergrad_optimizer(start: FloatArray, settings: SearchSettings) -> Any:
    require_optimizer(settings.optimizer)
    parametrization = ng.p.Array(init=start)
    parametrization.set_bounds(-settings.weight_bound, settings.weight_bound)
    parametrization.random_state.seed(settings.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ng.optimizers.registry[settings.optimizer](
            parametrization=parametrization, budget=settings.budget, num_workers=1
        )


def _resolved_name(optimizer: Any, asked: str) -> str:
    inner = optimizer
    while getattr(inner, "_optim", None) is not None:
        inner = inner._optim
    return str(inner.name or asked)


def _finite(losses: FloatArray) -> FloatArray:
    return np.where(np.isfinite(losses), np.minimum(losses, WORST_LOSS), WORST_LOSS)


def _read_checkpoint(path: Path, fingerprint: str) -> list[Evaluation]:
    """Read an earlier run's evaluations; a file of another search or a torn one counts as none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["fingerprint"] != fingerprint:
            return []
        return [
            Evaluation(item["number"], tuple(item["weights"]), item["loss"], item["fit_loss"])
            for item in data["evaluations"]
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _write_checkpoint(path: Path, fingerprint: str, history: Sequence[Evaluation]) -> None:
    data = {"fingerprint": fingerprint, "evaluations": [asdict(item) for item in history]}
    scratch = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(json.dumps(data), encoding="utf-8")
        os.replace(scratch, path)  # noqa: PTH105 - atomic
    except OSError as error:
        with contextlib.suppress(OSError):
            scratch.unlink()
        message = f"The checkpoint {path.name} cannot be written: {error.strerror}."
        raise StorageFull(message) from error
