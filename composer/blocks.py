"""Adapters cut into blocks of layers, so that each can weigh otherwise in each block."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from composer.adapter import LoraAdapter
from composer.errors import SearchError
from composer.inspection import ModuleTable

_LAYER = re.compile(r".*?\.\d+(?=\.|$)")


def split_into_blocks(
    adapters: Sequence[LoraAdapter], table: ModuleTable, n_blocks: int
) -> list[LoraAdapter]:
    """Cut every adapter into one for each block of layers, block by block: blocks x adapters.

    Weights of these, merged by an exact sum, are weights of the adapters block by block. Layers are
    counted in the order of the base; what belongs to none, as a head, goes with the last block.

    Raises:
        SearchError: if the base has fewer layers than there are to be blocks.
    """
    block_of = _blocks(table, n_blocks)
    return [
        LoraAdapter(
            f"{adapter.name} [{block + 1} of {n_blocks}]",
            {path: layer for path, layer in adapter.layers.items() if block_of[path] == block},
            adapter.base_name,
            adapter.task_type,
        )
        for block in range(n_blocks)
        for adapter in adapters
    ]


def most_blocks(table: ModuleTable, wanted: int) -> int:
    """Return `wanted`, or the number of the base's layers if there are fewer; at least 1."""
    return max(1, min(wanted, len(_list_layers(table))))


def _blocks(table: ModuleTable, n_blocks: int) -> Mapping[str, int]:
    """Return the block of every module: its layer's place among all layers, in equal shares."""
    layers = _list_layers(table)
    if not 1 <= n_blocks <= len(layers):
        message = (
            f"The base has {len(layers)} layers, so there can be 1 to {len(layers)} blocks of "
            f"them, not {n_blocks}."
        )
        raise SearchError(message)
    place = {layer: i * n_blocks // len(layers) for i, layer in enumerate(layers)}
    return {path: place.get(_layer_of(path), n_blocks - 1) for path in table}


def _list_layers(table: ModuleTable) -> list[str]:
    return [layer for layer in dict.fromkeys(map(_layer_of, table)) if layer]


def _layer_of(path: str) -> str:
    match = _LAYER.match(path)
    return match[0] if match else ""
