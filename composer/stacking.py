"""The candidates of one search, stacked and hooked into the base: score many weights at once.

The factors of all candidates lie side by side in one pair of tensors a layer. A forward pass takes
the cheaper of two roads in each layer: it multiplies the tokens by the factors, where a weight
vector is a small vector of coefficients, different for every row if need be; or it folds the
weights that the rows share into a copy of the layer's own matrix, which costs the same however many
tokens follow, and multiplies by the factors only where rows differ from that copy. Losses and
answers are left to `composer.scoring`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from composer.adapter import LoraAdapter
from composer.base_model import LoadedBase
from composer.errors import BaseModelError, IncompatibleAdapters
from composer.fast_layers import multiply

Space = Literal["delta", "factor"]
Vector = np.ndarray[Any, np.dtype[np.float32]]

# Copies of the adapted matrices may take this much memory; beyond it nothing is folded.
FOLDED_BYTES = 512 * 1024**2
# Reading and writing tokens or a matrix costs as much as multiplying by this many ranks.
COPY_RANKS = 16


class AdapterStack:
    """Candidates hooked into a base; use as a context manager, and `applied` around a forward pass.

    `delta` space gives `y = W x + sum_i w_i s_i B_i A_i x`, `factor` space LoraHub's
    `y = W x + s (sum_i w_i B_i) (sum_i w_i A_i) x`. A batch may mix rows of several weight vectors.
    """

    def __init__(
        self, base: LoadedBase, adapters: Sequence[LoraAdapter], *, space: Space = "delta"
    ) -> None:
        self.n_candidates = len(adapters)
        self.space = space
        self.rows: RowWeights | None = None
        modules = dict(base.model.named_modules())
        self._layers = [_stack(base, modules, adapters, path, space) for path in _paths(adapters)]
        if space == "factor":
            _require_equal_ranks(adapters)
        copies = sum(layer.a.element_size() * layer.size for layer in self._layers)
        self.folds = base.device.type == "cpu" and copies <= FOLDED_BYTES
        self._hooked: list[AdaptedLayer] = []

    def __enter__(self) -> Self:
        for layer in self._layers:
            self._hooked.append(AdaptedLayer(self, layer))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self._hooked:
            self._hooked.pop().remove()

    @contextlib.contextmanager
    def applied(self, weights: torch.Tensor) -> Iterator[None]:
        """Adapt the base inside the block: `weights` is (rows of the batch, candidates)."""
        before = self.rows
        self.rows = RowWeights(weights) if weights.any() else None
        try:
            yield
        finally:
            self.rows = before


class RowWeights:
    """The weights of the rows of one forward pass, and what was decided for layers alike."""

    def __init__(self, weights: torch.Tensor) -> None:
        self.values: Vector = weights.detach().float().cpu().numpy()  # (rows, candidates)
        # Most rows' weights: one step away from all of a greedy population.
        self.middle: Vector = np.sort(self.values, axis=0)[(len(self.values) - 1) // 2]
        self.are_equal = bool((self.values == self.values[0]).all())
        self.plans: dict[tuple[Any, ...], Plan] = {}


@dataclass(frozen=True)
class Plan:
    """How a layer adds its candidates: what to fold, and what is left for the tokens.

    `columns` are the ranks that the tokens meet, None for all; `coefficients` is (rows, ranks).
    """

    folded: Vector | None
    columns: torch.Tensor | None
    coefficients: torch.Tensor | None


@dataclass(frozen=True)
class StackedLayer:
    """The factors of all candidates of one layer; `owner[k]` says whose the k-th rank is."""

    module: nn.Module
    a: torch.Tensor  # (sum r_i, in_features)
    b: torch.Tensor  # (out_features, sum r_i), scalings included
    owner: np.ndarray[Any, np.dtype[np.int64]]  # (sum r_i,)
    n_candidates: int

    @property
    def size(self) -> int:
        """Return how many numbers the layer's own matrix holds."""
        return int(self.a.shape[1] * self.b.shape[0])

    @property
    def matrix(self) -> torch.Tensor:
        """Return the layer's own matrix, (out_features, in_features)."""
        weight: torch.Tensor = self.module.weight  # type: ignore[assignment]
        return weight.T if isinstance(self.module, Conv1D) else weight

    def ranks_of(self, chosen: np.ndarray[Any, Any]) -> int:
        """Return how many ranks the chosen candidates have together."""
        return int(chosen[self.owner].sum())

    def coefficients(self, weights: Vector) -> torch.Tensor:
        """Repeat every candidate's weight for its ranks: (..., candidates) -> (..., sum r_i)."""
        return torch.from_numpy(weights[..., self.owner]).to(self.a.device, self.a.dtype)


class AdaptedLayer:
    """Takes the place of one layer's `forward` while a stack is hooked in."""

    def __init__(self, stack: AdapterStack, layer: StackedLayer) -> None:
        self._stack = stack
        self._layer = layer
        self._plain = layer.module.forward
        self._own = vars(layer.module).get("forward")
        self._folded: Vector | None = None  # the weights in `_matrix`
        self._matrix: torch.Tensor | None = None
        layer.module.forward = self

    def remove(self) -> None:
        """Give the layer its own `forward` back."""
        if self._own is None:
            del self._layer.module.forward
        else:
            self._layer.module.forward = self._own

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the adapted layer: (rows, ..., in_features) -> (rows, ..., out_features)."""
        rows = self._stack.rows
        if rows is None or not x.numel():
            return self._plain(x)  # type: ignore[no-any-return]
        if self._stack.space == "factor":
            return self._by_factors(x, rows)
        plan = self._plan(x, rows)
        y = self._plain(x) if plan.folded is None else self._multiply(x, plan.folded)
        if plan.coefficients is None:
            return y
        a, b = self._layer.a, self._layer.b
        if plan.columns is not None:
            a, b = a[plan.columns], b[:, plan.columns]
        z = _by_row(multiply(x, a), plan.coefficients)
        return _added(y, multiply(z, b))

    def _plan(self, x: torch.Tensor, rows: RowWeights) -> Plan:
        """Choose what to fold by the multiplications it saves; layers alike share the answer."""
        layer = self._layer
        n_tokens = x.numel() // x.shape[-1]
        shape = (n_tokens, x.shape[0], *layer.a.shape, len(layer.b))
        key = (id(self._folded), shape, layer.owner.tobytes())
        if key not in rows.plans:
            best = min(self._choices(rows), key=lambda choice: self._cost(choice, rows, n_tokens))
            rows.plans[key] = self._make_plan(best, rows, x)
        return rows.plans[key]

    def _choices(self, rows: RowWeights) -> list[Vector | None]:
        if not self._stack.folds or torch.is_grad_enabled():
            return [None]
        choices = [None, rows.middle]
        return choices if self._folded is None else [*choices, self._folded]

    def _cost(self, folded: Vector | None, rows: RowWeights, n_tokens: int) -> int:
        layer = self._layer
        left = layer.ranks_of(_differing(rows.values, folded))
        left += COPY_RANKS if left else 0
        cost = n_tokens * (layer.a.shape[1] + layer.b.shape[0]) * left
        if folded is not None and folded is not self._folded:
            cost += layer.size * (layer.ranks_of(folded != 0) + COPY_RANKS)
        return cost

    def _make_plan(self, folded: Vector | None, rows: RowWeights, x: torch.Tensor) -> Plan:
        layer = self._layer
        left = _differing(rows.values, folded)[layer.owner]
        if not left.any():
            return Plan(folded, None, None)
        values = rows.values if folded is None else rows.values - folded
        coefficients = layer.coefficients(values)  # (rows, sum r_i)
        # Some architectures flatten (rows, tokens) before their linear layers.
        coefficients = coefficients.repeat_interleave(x.shape[0] // len(values), dim=0)
        if left.all():
            return Plan(folded, None, coefficients)
        columns = torch.from_numpy(left.nonzero()[0]).to(layer.a.device)
        return Plan(folded, columns, coefficients[:, columns])

    def _multiply(self, x: torch.Tensor, folded: Vector) -> torch.Tensor:
        """Multiply by the layer's matrix with these weights in it; keep it for the next pass."""
        if self._matrix is None or folded is not self._folded:
            layer = self._layer
            active = (folded != 0)[layer.owner]
            scaled = layer.b * layer.coefficients(folded)
            a = layer.a
            if not active.all():
                columns = torch.from_numpy(active.nonzero()[0])
                scaled, a = scaled[:, columns], a[columns]
            self._fold(scaled, a, folded)
        return multiply(x, self._matrix, self._layer.module.bias)  # type: ignore[arg-type]

    def _fold(self, left: torch.Tensor, right: torch.Tensor, folded: Vector) -> None:
        """Keep `W + left right`: (out_features, ranks) by (ranks, in_features)."""
        if left.dtype == torch.float32:
            product = multiply(left.contiguous(), right.T.contiguous())
            self._matrix = product.add_(self._layer.matrix)
        else:
            self._matrix = torch.addmm(self._layer.matrix, left, right)
        self._folded = folded

    def _by_factors(self, x: torch.Tensor, rows: RowWeights) -> torch.Tensor:
        """Merge the factors of one weight vector; where rows differ, each token does it."""
        layer = self._layer
        if not rows.are_equal:
            return _added(self._plain(x), self._update_by_row(x, rows))
        folded = rows.values[0]
        is_folded = self._folded is not None and np.array_equal(folded, self._folded)
        n_tokens = x.numel() // x.shape[-1]
        pays = n_tokens * (layer.a.shape[1] + layer.b.shape[0]) > layer.size
        if is_folded or (pays and self._stack.folds and not torch.is_grad_enabled()):
            if not is_folded:
                a, b = self._merged_factors(folded)
                self._fold(b, a, folded)
            return multiply(x, self._matrix, layer.module.bias)  # type: ignore[arg-type]
        a, b = self._merged_factors(folded)
        return _added(self._plain(x), multiply(multiply(x, a), b.contiguous()))

    def _merged_factors(self, weights: Vector) -> tuple[torch.Tensor, torch.Tensor]:
        """Return `sum_i w_i A_i`, (rank, in_features), and `s sum_i w_i B_i`, (out, rank)."""
        layer, n = self._layer, self._stack.n_candidates
        w = torch.from_numpy(weights).to(layer.a.device, layer.a.dtype)
        a = (w[None] @ layer.a.view(n, -1)).view(-1, layer.a.shape[1])
        b = (w[None] @ layer.b.T.reshape(n, -1)).view(-1, len(layer.b)).T
        return a, b

    def _update_by_row(self, x: torch.Tensor, rows: RowWeights) -> torch.Tensor:
        layer, n = self._layer, self._stack.n_candidates
        w = torch.from_numpy(rows.values).to(layer.a.device, layer.a.dtype)
        w = w.repeat_interleave(x.shape[0] // len(w), dim=0)
        w = w.view(len(w), *[1] * (x.dim() - 2), n, 1)  # (rows, 1, candidates, 1)
        parts = multiply(x, layer.a).unflatten(-1, (n, -1))  # (rows, tokens, candidates, rank)
        merged = (parts * w).sum(dim=-2, keepdim=True)  # (rows, tokens, 1, rank): A(w) x
        return multiply((merged * w).flatten(-2), layer.b.contiguous())


def _differing(values: Vector, folded: Vector | None) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Tell which candidates some row weighs otherwise than the folded weights."""
    return np.asarray((values != (0 if folded is None else folded)).any(axis=0))


def _by_row(z: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
    """Scale (rows, ..., ranks) by (rows, ranks)."""
    shape = (len(coefficients), *[1] * (z.dim() - 2), -1)
    return z * coefficients.view(shape)


def _added(y: torch.Tensor, update: torch.Tensor) -> torch.Tensor:
    return y + update if torch.is_grad_enabled() else update.add_(y)


def _stack(
    base: LoadedBase,
    modules: dict[str, nn.Module],
    adapters: Sequence[LoraAdapter],
    path: str,
    space: Space,
) -> StackedLayer:
    if path not in modules:
        raise BaseModelError(f"The base model {base.source.title} has no layer {path}.")
    parts = [(i, item.layers[path]) for i, item in enumerate(adapters) if path in item.layers]
    a = torch.cat([layer.a.float() for _, layer in parts])
    b = torch.cat([layer.b.float() * layer.scaling for _, layer in parts], dim=1)
    b = b.to(base.device, base.dtype)
    return StackedLayer(
        module=modules[path],
        a=a.to(base.device, base.dtype),
        # In factor space candidates are summed: each one's numbers lie together.
        b=b.T.contiguous().T if space == "factor" else b,
        owner=np.array([i for i, layer in parts for _ in range(layer.rank)]),
        n_candidates=len(adapters),
    )


def _paths(adapters: Sequence[LoraAdapter]) -> list[str]:
    return list(dict.fromkeys(path for adapter in adapters for path in adapter.layers))


def _require_equal_ranks(adapters: Sequence[LoraAdapter]) -> None:
    """Refuse adapters of which a module has several ranks; modules may differ from each other."""
    shapes = {
        frozenset((path, layer.rank) for path, layer in item.layers.items()) for item in adapters
    }
    if len(shapes) != 1:
        message = "factor needs equal ranks and modules. Choose concat or svd, which allow others."
        raise IncompatibleAdapters(message)
