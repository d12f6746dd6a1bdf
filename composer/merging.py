"""The three merge methods as pure functions on low-rank layers: tensors in, tensors out.

`factor` is LoraHub's own formula (arXiv 2307.13269, section 3.2), `concat` the exact weighted sum
of updates, `svd` its best approximation of a given rank. Choosing weights is left to
`composer.search`, files to `composer.adapter`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from composer.adapter import LoraAdapter, LoraLayer
from composer.compatibility import MergeMethod
from composer.errors import IncompatibleAdapters


@dataclass(frozen=True)
class Merged:
    """One adapter made of several; `svd_error` is the relative Frobenius error of the update."""

    adapter: LoraAdapter
    svd_error: float | None = None


def merge_adapters(
    adapters: Sequence[LoraAdapter],
    weights: Sequence[float],
    method: MergeMethod,
    *,
    svd_rank: int | None = None,
    name: str = "composed",
) -> Merged:
    """Combine adapters of one base with one weight each; zero weights are left out.

    A module that only some adapters change counts as zero in the others. Weights that are all zero
    give an adapter that changes nothing. `svd_rank` defaults to the largest rank among the
    adapters.

    Raises:
        IncompatibleAdapters: if `factor` is asked for unequal ranks, scalings or modules.
    """
    if method == "factor":
        _require_equal_shapes(adapters)
    chosen = [(adapter, float(w)) for adapter, w in zip(adapters, weights, strict=True) if w]
    if not chosen:
        return _finish(adapters, {}, name, None if method != "svd" else 0.0)
    rank = svd_rank or max(layer.rank for item, _ in chosen for layer in item.layers.values())
    layers: dict[str, LoraLayer] = {}
    lost = total = 0.0
    for path in _paths([adapter for adapter, _ in chosen]):
        parts = [(item.layers[path], w) for item, w in chosen if path in item.layers]
        if method == "factor":
            layers[path] = factor(parts)
            continue
        layers[path] = concat(parts)
        if method == "svd":
            layers[path], layer_lost, layer_total = svd(layers[path], rank)
            lost, total = lost + layer_lost, total + layer_total
    error = None if method != "svd" else math.sqrt(lost / total) if total else 0.0
    return _finish(adapters, layers, name, error)


def factor(parts: Sequence[tuple[LoraLayer, float]]) -> LoraLayer:
    """Merge both factors: `s (sum w_i B_i) (sum w_i A_i)`, which has cross terms `B_i A_j`.

    `s` is the scaling of the first layer; all ranks must be equal. -w gives the same update as w.
    """
    a = sum_weighted([(layer.a, weight) for layer, weight in parts])  # (rank, in_features)
    b = sum_weighted([(layer.b, weight) for layer, weight in parts])  # (out_features, rank)
    return LoraLayer(a, b, parts[0][0].scaling)


def concat(parts: Sequence[tuple[LoraLayer, float]]) -> LoraLayer:
    """Concatenate: `sum w_i s_i B_i A_i` exactly, with rank `sum r_i` and scaling 1."""
    a = torch.cat([layer.a.float() for layer, _ in parts])  # (sum r_i, in_features)
    b = torch.cat(
        [layer.b.float() * (weight * layer.scaling) for layer, weight in parts], dim=1
    )  # (out_features, sum r_i)
    return LoraLayer(a, b, 1.0)


def svd(layer: LoraLayer, rank: int) -> tuple[LoraLayer, float, float]:
    """Find the best approximation of one layer's update with at most `rank`, in float64.

    QR of both factors leaves a core of (sum r_i, sum r_i) to decompose (Eckart-Young); the full
    update is never formed. Returns the layer, and the squared Frobenius norms of what was lost and
    of the whole.
    """
    b_basis, b_core = torch.linalg.qr(layer.b.double() * layer.scaling)  # (out, k), (k, r)
    a_basis, a_core = torch.linalg.qr(layer.a.double().T)  # (in, m), (m, r)
    left, values, right = torch.linalg.svd(b_core @ a_core.T, full_matrices=False)
    kept = min(rank, len(values))
    root = values[:kept].sqrt()
    a = (root[:, None] * right[:kept]) @ a_basis.T  # (kept, in_features)
    b = b_basis @ (left[:, :kept] * root)  # (out_features, kept)
    squares = values.square()
    return (
        LoraLayer(a.float(), b.float(), 1.0),
        float(squares[kept:].sum()),
        float(squares.sum()),
    )


def sum_weighted(parts: Sequence[tuple[torch.Tensor, float]]) -> torch.Tensor:
    """Sum tensors of one shape with their weights, in float32."""
    total = torch.zeros_like(parts[0][0], dtype=torch.float32)
    for tensor, weight in parts:
        total.add_(tensor.float(), alpha=weight)
    return total


def _finish(
    adapters: Sequence[LoraAdapter],
    layers: dict[str, LoraLayer],
    name: str,
    svd_error: float | None,
) -> Merged:
    if not layers:
        layers = {
            path: LoraLayer(torch.zeros(1, layer.a.shape[1]), torch.zeros(layer.b.shape[0], 1), 1.0)
            for path, layer in adapters[0].layers.items()
        }
    first = adapters[0]
    merged = LoraAdapter(name, layers, base_name=first.base_name, task_type=first.task_type)
    return Merged(merged, svd_error)


def _paths(adapters: Sequence[LoraAdapter]) -> list[str]:
    return list(dict.fromkeys(path for adapter in adapters for path in adapter.layers))


def _require_equal_shapes(adapters: Sequence[LoraAdapter]) -> None:
    def shape(adapter: LoraAdapter) -> dict[str, tuple[int, float]]:
        return {path: (layer.rank, layer.scaling) for path, layer in adapter.layers.items()}

    odd = [item.name for item in adapters[1:] if shape(item) != shape(adapters[0])]
    if odd:
        message = (
            f"factor needs equal ranks, scalings and modules; {', '.join(odd)} differ from "
            f"{adapters[0].name}. Choose concat or svd, which allow it."
        )
        raise IncompatibleAdapters(message)
