"""The candidates of one search as stacked tensors hooked into the base: score many weights at once.

Building a merged adapter for every weight vector would cost more than the forward pass it serves.
Instead the factors of all candidates lie side by side in one pair of tensors a layer, and a weight
vector is a small vector of coefficients, different for every row of the batch if need be. Losses
and answers are left to `composer.scoring`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

import torch
from torch import nn

from composer.adapter import LoraAdapter
from composer.base_model import LoadedBase
from composer.errors import BaseModelError, IncompatibleAdapters

Space = Literal["delta", "factor"]


@dataclass(frozen=True)
class _StackedLayer:
    """The factors of all candidates of one layer; `owner[k]` says whose the k-th rank is."""

    a: torch.Tensor  # (in_features, sum r_i)
    b: torch.Tensor  # (sum r_i, out_features), scalings included
    owner: torch.Tensor  # (sum r_i,)


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
        self._weights: torch.Tensor | None = None
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._modules = dict(base.model.named_modules())
        self._base = base
        self._layers = {path: self._stack(adapters, path) for path in _paths(adapters)}
        if space == "factor":
            _require_equal_ranks(adapters)

    def __enter__(self) -> Self:
        for path, layer in self._layers.items():
            hook = _Hook(self, layer)
            self._handles.append(self._modules[path].register_forward_hook(hook))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @contextlib.contextmanager
    def applied(self, weights: torch.Tensor) -> Iterator[None]:
        """Adapt the base inside the block: `weights` is (rows of the batch, candidates)."""
        self._weights = weights.to(self._base.device, self._base.dtype) if weights.any() else None
        try:
            yield
        finally:
            self._weights = None

    def update(self, layer: _StackedLayer, x: torch.Tensor) -> torch.Tensor | None:
        """Compute what the candidates add to one layer's output; None if all weights are zero."""
        weights = self._weights  # (rows, candidates)
        if weights is None:
            return None
        if x.shape[0] != weights.shape[0]:
            # Some architectures flatten (rows, tokens) before their linear layers.
            weights = weights.repeat_interleave(x.shape[0] // weights.shape[0], dim=0)
        z = x @ layer.a  # (rows, tokens, sum r_i)
        if self.space == "delta":
            coefficients = weights[:, layer.owner]  # (rows, sum r_i)
            if x.dim() > 2:  # noqa: PLR2004 - a token dimension
                coefficients = coefficients.unsqueeze(1)
            return (z * coefficients) @ layer.b
        w = weights.view(len(weights), *[1] * (x.dim() - 2), -1, 1)  # (rows, 1, candidates, 1)
        parts = z.unflatten(-1, (self.n_candidates, -1))  # (rows, tokens, candidates, rank)
        merged = (parts * w).sum(dim=-2, keepdim=True)  # (rows, tokens, 1, rank): A(w) x
        return (merged * w).flatten(-2) @ layer.b  # type: ignore[no-any-return]

    def _stack(self, adapters: Sequence[LoraAdapter], path: str) -> _StackedLayer:
        if path not in self._modules:
            message = f"The base model {self._base.source.title} has no layer {path}."
            raise BaseModelError(message)
        parts = [(i, item.layers[path]) for i, item in enumerate(adapters) if path in item.layers]
        device, dtype = self._base.device, self._base.dtype
        a = torch.cat([layer.a.float() for _, layer in parts]).T
        b = torch.cat([layer.b.float() * layer.scaling for _, layer in parts], dim=1).T
        owner = torch.tensor([i for i, layer in parts for _ in range(layer.rank)], device=device)
        return _StackedLayer(
            a.to(device, dtype).contiguous(), b.to(device, dtype).contiguous(), owner
        )


class _Hook:
    """Adds a layer's update to its output."""

    def __init__(self, stack: AdapterStack, layer: _StackedLayer) -> None:
        self._stack = stack
        self._layer = layer

    def __call__(
        self, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> torch.Tensor:
        update = self._stack.update(self._layer, inputs[0])
        return output if update is None else output + update


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
