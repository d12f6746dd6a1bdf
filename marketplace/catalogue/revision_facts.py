"""What can be told of a revision from its rows alone: its tensors, and what it changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from marketplace.catalogue.models import Revision


@dataclass(frozen=True)
class TensorRow:
    """One tensor of the weights file."""

    name: str
    dtype: str
    shape: tuple[int, int]


@dataclass(frozen=True)
class Change:
    """A file or fact that differs from the revision before."""

    kind: str  # added, removed, changed
    name: str
    before: str = ""
    after: str = ""


_FACTS = {
    "rank": "rank",
    "alpha": "alpha",
    "targets_key": "target modules",
    "dtype": "dtype",
    "parameter_count": "parameters",
    "base_model": "base model",
}


def list_tensors(revision: Revision) -> list[TensorRow]:
    """Return names and shapes of the tensors: the summary's modules on the base's table."""
    summary = revision.adapter_summary
    table = revision.base_model.module_table if revision.base_model else {}
    if summary is None:
        return []
    rows = []
    for module, rank in sorted(summary.modules.items()):
        if module not in table:
            continue
        width_in, width_out = table[module]
        rows.append(TensorRow(f"{module}.lora_A.weight", summary.dtype, (rank, width_in)))
        rows.append(TensorRow(f"{module}.lora_B.weight", summary.dtype, (width_out, rank)))
    return rows


def compare_trees(before: Revision | None, after: Revision) -> list[Change]:
    """Return the files and facts that differ between two revisions."""
    if before is None:
        return []
    return _compare_files(before, after) + _compare_facts(before, after)


def _compare_files(before: Revision, after: Revision) -> list[Change]:
    old = {file.path: file.blob for file in before.files.select_related("blob")}
    new = {file.path: file.blob for file in after.files.select_related("blob")}
    changes = []
    for path in sorted(old.keys() | new.keys()):
        if path not in old:
            changes.append(Change("added", path, "", new[path].sha256))
        elif path not in new:
            changes.append(Change("removed", path, old[path].sha256, ""))
        elif old[path].pk != new[path].pk:
            changes.append(Change("changed", path, old[path].sha256, new[path].sha256))
    return changes


def _compare_facts(before: Revision, after: Revision) -> list[Change]:
    pairs = [(noun, getattr(before, name), getattr(after, name)) for name, noun in _FACTS.items()]
    return [
        Change("changed", noun, _written(old), _written(new))
        for noun, old, new in pairs
        if old != new
    ]


def _written(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else str(value or "none")
