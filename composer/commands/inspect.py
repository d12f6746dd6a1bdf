"""`inspect`: check adapter folders, list every problem, say which merges the good ones allow."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping
from pathlib import Path

from rich.table import Column, Table

from composer.commands.files import find_adapters
from composer.commands.output import Output
from composer.compatibility import check_compatibility
from composer.errors import InvalidAdapter
from composer.inspection import AdapterSummary, ModuleTable, inspect_adapter


def run(args: argparse.Namespace, output: Output) -> int:
    """Inspect every folder; 1 if one was refused."""
    table = _module_table(args.base)
    summaries: dict[str, AdapterSummary] = {}
    refused: dict[str, InvalidAdapter] = {}
    for name, folder in find_adapters(args.adapters).items():
        try:
            summaries[name] = inspect_adapter(Path(folder), table)
        except InvalidAdapter as error:
            refused[name] = error
    compatibility = check_compatibility(summaries)
    data = {
        "accepted": {name: summary.to_dict() for name, summary in summaries.items()},
        "refused": {
            name: [problem.to_dict() for problem in error.problems]
            for name, error in refused.items()
        },
        "compatibility": compatibility.to_dict(),
    }
    lines = [f"{name} is refused.\n{error}" for name, error in refused.items()]
    if len(summaries) > 1:
        lines += [
            f"{method}: {' '.join(reasons) or 'fits'}"
            for method, reasons in compatibility.methods.items()
        ]
    output.show(data, *([_table(summaries)] if summaries else []), *lines)
    return 1 if refused else 0


def _module_table(base: str | None) -> ModuleTable | None:
    if base is None:
        return None
    # Reading a base model's layers needs torch; checking files alone does not.
    base_model = importlib.import_module("composer.base_model")
    table: ModuleTable = base_model.compute_module_table(base_model.parse_source(base))
    return table


def _table(summaries: Mapping[str, AdapterSummary]) -> Table:
    words = (Column(title, overflow="fold") for title in ("adapter", "base", "modules"))
    figures = (Column(title, no_wrap=True) for title in ("rank", "alpha", "layers", "type"))
    table = Table(*words, *figures, Column("bytes", no_wrap=True))
    for name, summary in summaries.items():
        table.add_row(
            name,
            summary.base_model_name_or_path or "",
            ", ".join(summary.target_modules),
            str(summary.rank),
            f"{summary.alpha:g}",
            str(len(summary.modules)),
            summary.dtype,
            f"{summary.weights_size:,}",
        )
    return table
