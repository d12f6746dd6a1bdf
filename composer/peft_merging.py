"""Weights set by hand with any of peft's own combinations: linear, ties, dare and their kin.

Our three formulas live in `composer.merging`; these are peft's (`LoraModel.add_weighted_adapter`),
reachable but not written again. They work on the base model, so they need it in memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import peft
import torch

from composer.adapter import LoraAdapter
from composer.base_model import LoadedBase
from composer.errors import IncompatibleAdapters

# Options that only some combinations take.
_RANKED = ("svd", "ties_svd", "dare_linear_svd", "dare_ties_svd", "magnitude_prune_svd")
_PRUNED = ("ties", "dare", "magnitude_prune")


def merge_with_peft(
    base: LoadedBase,
    adapters: Sequence[LoraAdapter],
    weights: Sequence[float],
    combination: str,
    *,
    options: Mapping[str, Any] | None = None,
    seed: int = 42,
) -> LoraAdapter:
    """Combine adapters by one of peft's combination types; the base is left as it was.

    Args:
        base: the model that the adapters belong to.
        adapters: at least one.
        weights: one an adapter.
        combination: a `combination_type` of peft.
        options: `svd_rank` (svd combinations) and `density` (ties, dare, magnitude_prune).
        seed: for the combinations that drop entries at random.

    Raises:
        IncompatibleAdapters: in peft's words, if it refuses (unequal ranks, negative weights, ...).
    """
    with tempfile.TemporaryDirectory() as scratch:
        # peft filters tensors by these names: one like "0" would hide the base's layer 0.
        names = [f"ingredient_{i}" for i in range(len(adapters))]
        folders = [Path(scratch) / name for name in names]
        for adapter, folder in zip(adapters, folders, strict=True):
            adapter.save(folder, base.module_table)
        model = peft.PeftModel.from_pretrained(base.model, folders[0], adapter_name=names[0])
        try:
            for name, folder in zip(names[1:], folders[1:], strict=True):
                model.load_adapter(folder, adapter_name=name)
            _combine(model, names, list(weights), combination, dict(options or {}), seed)
            # Without the last argument peft asks a hub whether the vocabulary has grown.
            model.save_pretrained(
                scratch, selected_adapters=["merged"], save_embedding_layers=False
            )
        finally:
            model.unload()
            # peft leaves its own configuration on the model it wrapped.
            vars(base.model).pop("peft_config", None)
        return LoraAdapter.load(Path(scratch) / "merged", base.module_table, name="merged")


def _combine(
    model: Any,
    names: list[str],
    weights: list[float],
    combination: str,
    options: dict[str, Any],
    seed: int,
) -> None:
    wanted: dict[str, Any] = {}
    if combination in _RANKED and options.get("svd_rank"):
        wanted["svd_rank"] = options["svd_rank"]
    if combination.startswith(_PRUNED):
        wanted["density"] = options.get("density", 0.5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model.add_weighted_adapter(
                names, weights, "merged", combination_type=combination, **wanted
            )
        except (ValueError, NotImplementedError) as error:
            message = f"peft cannot combine these adapters by {combination}: {error}"
            raise IncompatibleAdapters(message) from error
