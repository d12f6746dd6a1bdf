"""A LoRA adapter in memory: its low-rank layers, read from and written to PEFT's two files.

What may be read is decided by `composer.inspection`; this module trusts an `AdapterSummary` and
only moves tensors. Combining adapters is left to `composer.merging` and `composer.stacking`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from composer.errors import InvalidAdapter, Problem
from composer.inspection import AdapterSummary, ModuleTable, inspect_adapter

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"

_KEY = re.compile(r"base_model\.model\.(?P<path>.+)\.lora_(?P<factor>[AB])(?:\.\w+)?\.weight")


@dataclass(frozen=True)
class LoraLayer:
    """The update of one linear layer: `scaling * b @ a`."""

    a: torch.Tensor  # (rank, in_features)
    b: torch.Tensor  # (out_features, rank)
    scaling: float

    @property
    def rank(self) -> int:
        """Return the rank of the two factors."""
        return int(self.a.shape[0])

    def delta(self) -> torch.Tensor:
        """Form the full update, (out_features, in_features) in float32, to look at it."""
        return self.scaling * (self.b.float() @ self.a.float())


@dataclass(frozen=True)
class LoraAdapter:
    """The layers of one adapter, by the dotted path of the base's module that each changes."""

    name: str
    layers: Mapping[str, LoraLayer]
    base_name: str | None = None
    task_type: str | None = None

    @classmethod
    def load(
        cls,
        folder: Path,
        module_table: ModuleTable | None = None,
        *,
        name: str = "",
        summary: AdapterSummary | None = None,
    ) -> LoraAdapter:
        """Read a PEFT folder; tensors stay memory-mapped until they are used.

        Raises:
            InvalidAdapter: with every problem of the folder, unless a `summary` vouches for it.
        """
        if summary is None:
            summary = inspect_adapter(folder, module_table)
        factors = _read_factors(folder / WEIGHTS_NAME)
        layers = {
            path: LoraLayer(
                factors[path, "A"], factors[path, "B"], scaling=summary.scaling_of(path)
            )
            for path in summary.modules
        }
        return cls(
            name=name or folder.name,
            layers=layers,
            base_name=summary.base_model_name_or_path,
            task_type=summary.task_type,
        )

    def save(self, folder: Path, module_paths: Collection[str] = ()) -> None:
        """Write `adapter_config.json` and `adapter_model.safetensors`, which `PeftModel` reads.

        `module_paths` are all linear layers of the base; with them the config names target modules
        by their common endings instead of one by one.
        """
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {}
        for path, layer in self.layers.items():
            for factor, tensor in (("A", layer.a), ("B", layer.b)):
                tensors[f"base_model.model.{path}.lora_{factor}.weight"] = tensor.contiguous()
        save_file(tensors, folder / WEIGHTS_NAME, metadata={"format": "pt"})
        text = json.dumps(self.config(module_paths), indent=2, sort_keys=True)
        # safetensors makes its file private; this one is meant to be shared.
        (folder / WEIGHTS_NAME).chmod(0o644)
        (folder / CONFIG_NAME).write_text(f"{text}\n", encoding="utf-8")

    def config(self, module_paths: Collection[str] = ()) -> dict[str, Any]:
        """Return the adapter_config.json of these layers, with patterns where they differ."""
        ranks = {path: layer.rank for path, layer in self.layers.items()}
        alphas = {path: layer.scaling * layer.rank for path, layer in self.layers.items()}
        rank, rank_pattern = _default_and_pattern(ranks)
        alpha, alpha_pattern = _default_and_pattern(alphas)
        config = peft.LoraConfig(
            r=rank,  # type: ignore[arg-type]
            lora_alpha=alpha,  # type: ignore[arg-type]
            rank_pattern=rank_pattern,
            alpha_pattern=alpha_pattern,
            target_modules=_target_modules(self.layers, module_paths),
            lora_dropout=0.0,
            bias="none",
            task_type=self.task_type,
            inference_mode=True,
            base_model_name_or_path=self.base_name,
        ).to_dict()
        return {key: _json_value(value) for key, value in config.items()}


def _read_factors(path: Path) -> dict[tuple[str, str], torch.Tensor]:
    factors = {}
    try:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - not a mapping
                match = _KEY.fullmatch(key)
                if match:
                    factors[match["path"], match["factor"]] = file.get_tensor(key)
    except (OSError, SafetensorError) as error:
        problem = Problem(WEIGHTS_NAME, "", f"cannot be read: {error}.", "Upload it again.")
        raise InvalidAdapter(problem) from error
    return factors


def _default_and_pattern(values: Mapping[str, float]) -> tuple[float, dict[str, float]]:
    """Find the commonest value and name the modules that differ, by ending where that is enough."""
    numbers = {path: _whole(value) for path, value in values.items()}
    default = Counter(numbers.values()).most_common(1)[0][0]
    pattern: dict[str, float] = {}
    by_ending: dict[str, set[float]] = {}
    for path, value in numbers.items():
        by_ending.setdefault(path.rpartition(".")[2], set()).add(value)
    for path, value in numbers.items():
        ending = path.rpartition(".")[2]
        if value != default:
            pattern[ending if len(by_ending[ending]) == 1 else path] = value
    return default, pattern


def _target_modules(layers: Collection[str], module_paths: Collection[str]) -> list[str]:
    endings = {path.rpartition(".")[2] for path in layers}
    meant = {path for path in module_paths if path.rpartition(".")[2] in endings}
    return sorted(endings) if meant == set(layers) else sorted(layers)


def _whole(value: float) -> float:
    """Write 8.0 as 8, as peft does, and 0.30000000000000004 as it is."""
    return int(value) if float(value).is_integer() else float(value)


def _json_value(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, dict):
        return {key: _json_value(item) for key, item in value.items()}
    return getattr(value, "value", value)
