"""What is known about an adapter once it has been inspected: plain facts, no tensors.

The site stores the summary as JSON beside a revision; compatibility and merging read it instead of
opening files again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from composer.errors import Problem

# Dotted path of every linear layer in the base, without the prefix "base_model.model.", to its
# (in_features, out_features).
ModuleTable = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class AdapterSummary:
    """The facts of one accepted LoRA adapter.

    `rank` is the largest rank of any module and `alpha` the default alpha; `modules` has every
    adapted module of the base with its own rank, and `config` is the rebuilt adapter_config.json.
    """

    peft_type: str
    task_type: str | None
    base_model_name_or_path: str | None
    rank: int
    alpha: float
    use_rslora: bool
    rank_pattern: dict[str, int]
    alpha_pattern: dict[str, float]
    target_modules: tuple[str, ...]
    modules: dict[str, int]
    dtype: str
    tensor_count: int
    parameter_count: int
    weights_size: int
    weights_sha256: str
    peft_version: str | None
    config: dict[str, Any]
    # Modules whose update is zero because all of lora_A or lora_B is.
    zero_modules: tuple[str, ...] = ()

    def alpha_of(self, module: str) -> float:
        """Return the alpha of one module: its own from `alpha_pattern`, else the default.

        A rebuilt config has literal keys only; the first that is the path or its ending counts, as
        in peft.
        """
        for key, alpha in self.alpha_pattern.items():
            if module == key or module.endswith(f".{key}"):
                return alpha
        return self.alpha

    def scaling_of(self, module: str) -> float:
        """Return the factor of B A: alpha / rank, or alpha / sqrt(rank) with rsLoRA."""
        rank = self.modules[module]
        return self.alpha_of(module) / (math.sqrt(rank) if self.use_rslora else rank)

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as values that JSON can hold."""
        data = asdict(self)
        data["target_modules"] = list(self.target_modules)
        data["zero_modules"] = list(self.zero_modules)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AdapterSummary:
        """Rebuild a summary that `to_dict` wrote, whether or not it went through JSON."""
        known = {field.name for field in fields(cls)}
        values = {key: value for key, value in data.items() if key in known}
        values["target_modules"] = tuple(values["target_modules"])
        values["zero_modules"] = tuple(values.get("zero_modules", ()))
        return cls(**values)


@dataclass(frozen=True)
class Inspection:
    """The outcome as data, for callers that run the inspection in another process."""

    summary: AdapterSummary | None
    problems: tuple[Problem, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return {"summary": ...} or {"problems": [...]}."""
        if self.summary is not None:
            return {"summary": self.summary.to_dict()}
        return {"problems": [problem.to_dict() for problem in self.problems]}
