"""`gradient`: learn the weights of the candidates by back-propagation through the frozen base.

An extra that uses gradients and is named as such wherever it is used. It minimises what
`composer.search` minimises, the fit loss and the penalty on the weights, over the same weights or
over one weight for each block of the base's layers; only the weights learn, nothing else. Which
rows and candidates those are, and what is written of the result, is left to `composer.composing`.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import linear

from composer.adapter import LoraAdapter, LoraLayer
from composer.backpropagation import Update, hooked, mean_loss
from composer.base_model import LoadedBase
from composer.errors import SearchError, Stopped, StorageFull
from composer.progress import ShouldStop, never
from composer.scoring import EncodedExample, FloatArray, l1_penalty
from composer.search import WORST_LOSS, Evaluation, Objective, finite_losses

GRADIENT = "gradient"
RESOLVED = "Adam, with gradients"

# What a step costs in evaluations: one forward pass, and a backward pass that counts as two.
# Measured on one core (SmolLM2-135M, 5 rows of 25 to 69 tokens), a step takes 3.1 times as long as
# an evaluation alone, and 4 to 6 times as long as one of a greedy population.
BACKWARD_EVALUATIONS = 2
STEP_EVALUATIONS = 1 + BACKWARD_EVALUATIONS


@dataclass(frozen=True)
class GradientSettings:
    """How to learn; `budget` counts evaluations beside number 0, the base alone.

    The learning rate falls linearly to zero. `batch_tokens` bounds the padded tokens of one pass;
    of many rows the gradients of several passes are added up. The penalty is LoraHub's:
    `l1_penalty * mean_i |w_i|`.
    """

    budget: int
    weight_bound: float = 1.5
    l1_penalty: float = 0.05
    start: tuple[float, ...] | None = None
    learning_rate: float = 0.1
    batch_tokens: int = 1024

    @property
    def steps(self) -> int:
        """Return how many steps the budget pays for, when the last weights are scored as well."""
        return max(0, (self.budget - 1) // STEP_EVALUATIONS)

    def penalty(self, weights: FloatArray) -> tuple[float, FloatArray]:
        """Return the penalty and its derivative by every weight."""
        slope = self.l1_penalty * np.sign(weights) / len(weights)
        return float(l1_penalty(weights, self.l1_penalty)), slope


class GradientSearch:
    """One search; iterate `evaluations()`, then read `best`, `spent` and `history`.

    Nothing in it is random. With a `checkpoint`, losses and gradients are on disk before they are
    yielded; a later search of the same name takes the same steps again from there.
    """

    optimizer_resolved = RESOLVED

    def __init__(  # noqa: PLR0913
        self,
        base: LoadedBase,
        rows: Sequence[EncodedExample],
        adapters: Sequence[LoraAdapter],
        objective: Objective,
        settings: GradientSettings,
        *,
        checkpoint: Path | None = None,
        fingerprint: str = "",
        should_stop: ShouldStop = never,
    ) -> None:
        self.history: list[Evaluation] = []
        self.spent = 0
        self.steps = 0
        self._base = base
        self._batches = _cut(rows, settings.batch_tokens)
        self._sum = WeightedSum(base, adapters)
        self._objective = objective
        self._settings = settings
        self._should_stop = should_stop
        name = f"{fingerprint}|{len(adapters)}|{settings}"
        self._notes = _Notes(checkpoint, name)

    @property
    def best(self) -> Evaluation:
        """Return the evaluation with the lowest loss; of equals, the first."""
        return min(self.history, key=lambda evaluation: (evaluation.loss, evaluation.number))

    def evaluations(self) -> Iterator[Evaluation]:
        """Score the base alone, then the weights before every step, and where the last one ends.

        Raises:
            Stopped: between two passes, if the caller asked to stop; the checkpoint is kept.
            SearchError: if not a single evaluation had a loss that is a number.
            InsufficientMemory: one row does not fit into memory.
            StorageFull: the checkpoint cannot be written.
        """
        settings = self._settings
        n = self._sum.n_adapters
        yield self._score(np.zeros(n))
        start = np.array(settings.start or [0.0] * n)
        at = torch.tensor(start.clip(-settings.weight_bound, settings.weight_bound))
        adam = torch.optim.Adam([at], lr=settings.learning_rate)
        for step in range(settings.steps):
            here = at.numpy().copy()
            loss, gradient = self._differentiate(here)
            yield self._note(here, loss, STEP_EVALUATIONS)
            if not (math.isfinite(loss) and np.isfinite(gradient).all()):
                break
            for group in adam.param_groups:
                group["lr"] = settings.learning_rate * (1 - step / settings.steps)
            at.grad = torch.tensor(gradient + settings.penalty(here)[1])
            adam.step()
            at.clamp_(-settings.weight_bound, settings.weight_bound)
            self.steps += 1
        else:
            yield self._score(at.numpy().copy())
        if all(evaluation.fit_loss >= WORST_LOSS for evaluation in self.history):
            message = (
                "No weights gave a loss that is a number. Check the adapters and the examples."
            )
            raise SearchError(message)

    def _score(self, weights: FloatArray) -> Evaluation:
        self._ask()
        return self._note(weights, float(self._objective.losses(weights[None])[0]), 1)

    def _note(self, weights: FloatArray, loss: float, cost: int) -> Evaluation:
        fit = finite_losses(loss)
        whole = fit + self._settings.penalty(weights)[0]
        scored = Evaluation(self.spent, tuple(map(float, weights)), whole, fit)
        self.history.append(scored)
        self.spent += cost
        return scored

    def _differentiate(self, weights: FloatArray) -> tuple[float, FloatArray]:
        """Return the fit loss and its derivative by every weight, (candidates,)."""
        known = self._notes.replay(weights)
        if known is not None:
            return known
        w = torch.tensor(weights, dtype=torch.float32, device=self._base.device)
        self._sum.weights = w.requires_grad_()
        n_rows = sum(map(len, self._batches))
        loss = 0.0
        with hooked(self._base, self._sum.updates):
            for rows in self._batches:
                self._ask()
                share = mean_loss(self._base, rows) * (len(rows) / n_rows)
                # With nothing but adapters that change no layer there is still a derivative: zero.
                (share + 0 * w.sum()).backward()
                loss += float(share.detach())
        derivative = np.asarray(w.grad.double().cpu().numpy())  # type: ignore[union-attr]
        self._notes.write(weights, loss, derivative)
        return loss, derivative

    def _ask(self) -> None:
        if self._should_stop():
            raise Stopped("Stopped by request.")


class WeightedSum:
    """What the adapters add to each layer, `sum_i w_i s_i B_i A_i x`, differentiable in `weights`.

    `weights`, (adapters,), may be changed between two passes; `updates` are to be hooked in.
    """

    def __init__(self, base: LoadedBase, adapters: Sequence[LoraAdapter]) -> None:
        self.n_adapters = len(adapters)
        self.weights = torch.zeros(len(adapters), device=base.device)
        parts: dict[str, list[tuple[int, LoraLayer]]] = {}
        for i, adapter in enumerate(adapters):
            for path, layer in adapter.layers.items():
                parts.setdefault(path, []).append((i, layer))
        self.updates = {path: self._update(base, items) for path, items in parts.items()}

    def _update(self, base: LoadedBase, parts: Sequence[tuple[int, LoraLayer]]) -> Update:
        """Stack the factors of one layer once."""
        a = torch.cat([layer.a.float() for _, layer in parts])
        b = torch.cat([layer.b.float() * layer.scaling for _, layer in parts], dim=1)
        a = a.to(base.device, base.dtype)  # (sum r_i, in_features)
        b = b.to(base.device, base.dtype)  # (out_features, sum r_i)
        owner = torch.tensor([i for i, layer in parts for _ in range(layer.rank)])
        owner = owner.to(base.device)  # (sum r_i,)

        def update(x: torch.Tensor) -> torch.Tensor:
            ranks = linear(x, a.to(x.dtype)) * self.weights[owner].to(x.dtype)
            return linear(ranks, b.to(x.dtype))

        return update


def _cut(rows: Sequence[EncodedExample], batch_tokens: int) -> list[list[EncodedExample]]:
    """Cut the rows, the shortest first, into batches of so many padded tokens."""
    batches: list[list[EncodedExample]] = []
    for row in sorted(rows, key=lambda item: item.n_tokens):
        if not batches or row.n_tokens * (len(batches[-1]) + 1) > batch_tokens:
            batches.append([])
        batches[-1].append(row)
    return batches


class _Notes:
    """Losses and gradients of a search on disk, rewritten atomically after each of them."""

    def __init__(self, path: Path | None, name: str) -> None:
        self._path = path
        self._name = name
        self._done: list[dict[str, object]] = []
        self._stored = _read(path, name) if path else []

    def replay(self, weights: FloatArray) -> tuple[float, FloatArray] | None:
        """Return what an earlier run had at this point, if it was at the same weights."""
        if not self._stored:
            return None
        at, loss, gradient = self._stored.pop(0)
        if not np.allclose(at, weights, rtol=0, atol=1e-9):
            self._stored = []  # another machine rounds differently: from here on a fresh search
            return None
        self._keep(weights, loss, gradient)
        return loss, gradient

    def write(self, weights: FloatArray, loss: float, gradient: FloatArray) -> None:
        """Add a step and replace the file."""
        self._keep(weights, loss, gradient)
        if self._path is None:
            return
        scratch = self._path.with_name(f"{self._path.name}.new")
        text = json.dumps({"fingerprint": self._name, "steps": self._done})
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_text(text, encoding="utf-8")
            os.replace(scratch, self._path)  # noqa: PTH105 - atomic
        except OSError as error:
            with contextlib.suppress(OSError):
                scratch.unlink()
            message = f"The checkpoint {self._path.name} cannot be written: {error.strerror}."
            raise StorageFull(message) from error

    def _keep(self, weights: FloatArray, loss: float, gradient: FloatArray) -> None:
        step = {"weights": weights.tolist(), "loss": loss, "gradient": gradient.tolist()}
        self._done.append(step)


def _read(path: Path, name: str) -> list[tuple[FloatArray, float, FloatArray]]:
    """Read an earlier run's steps; a file of another search or a torn one counts as none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["fingerprint"] != name:
            return []
        return [
            (np.array(item["weights"]), float(item["loss"]), np.array(item["gradient"]))
            for item in data["steps"]
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []
