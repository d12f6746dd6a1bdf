"""Compute with a 16-bit base in float32, without a second copy of it in memory.

Each block of layers is widened for as long as it computes, so that at most one is held twice. The
weights stay those of the 16-bit base; it is the sums and products between them that are exact.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from composer.base_model import LoadedBase


@contextlib.contextmanager
def in_float32(base: LoadedBase) -> Iterator[LoadedBase]:
    """Give the base as one of float32; inside the block its model computes in that alone."""
    handles = []
    for part in _parts(base.model):
        widening = _Widening(part)
        handles.append(part.register_forward_pre_hook(widening.before))
        handles.append(part.register_forward_hook(widening.after, always_call=True))
    try:
        yield replace(base, dtype=torch.float32)
    finally:
        for handle in handles:
            handle.remove()


class _Widening:
    """Swaps the parameters of a part of a model for float32 ones while it computes."""

    def __init__(self, part: nn.Module) -> None:
        self._part = part
        self._narrow: list[tuple[nn.Module, str, nn.Parameter]] = []

    def before(self, _module: nn.Module, _inputs: Any) -> None:
        wide: dict[nn.Parameter, nn.Parameter] = {}
        for module in self._part.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.is_floating_point() and parameter.dtype != torch.float32:
                    self._narrow.append((module, name, parameter))
                    if parameter not in wide:
                        wide[parameter] = nn.Parameter(parameter.float(), requires_grad=False)
        for module, name, parameter in self._narrow:
            setattr(module, name, wide[parameter])

    def after(self, _module: nn.Module, _inputs: Any, _output: Any) -> None:
        for module, name, parameter in self._narrow:
            setattr(module, name, parameter)
        self._narrow.clear()


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    """Return the blocks of the outermost lists of layers, and single layers outside of them.

    Layers of one block look at each other's dtype, so a block is the smallest part there.
    """
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        elif any(True for _ in child.children()) and not _has_own(child):
            yield from _parts(child)
        else:
            yield child


def _has_own(module: nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False))
