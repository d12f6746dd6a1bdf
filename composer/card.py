"""What is written beside a composed adapter: its model card and `recipe.json`.

The recipe holds everything that made the weights (seed, optimiser, parents by hash, versions), so
that the same request gives the same adapter; the card says it in words. Pure texts: nothing here
imports torch.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from composer.examples import Example
from composer.report import Report, ReportRow

FORMAT = 1
LIBRARIES = ("torch", "transformers", "peft", "nevergrad", "numpy")
PAPER = "https://arxiv.org/abs/2307.13269"

_FORMULAS = {
    "concat": "the weighted sum of the updates, by concatenating their factors: exact",
    "svd": "the weighted sum of the updates, cut to a smaller rank by an SVD",
    "factor": "LoraHub's formula: both factors are weighted sums",
}


@dataclass(frozen=True)
class Ingredient:
    """One candidate as the card names it."""

    name: str
    revision: str
    sha256: str
    weight: float
    loss_alone: float | None


def make_recipe(  # noqa: PLR0913
    request: Any,
    ingredients: Sequence[Ingredient],
    *,
    optimizer_resolved: str,
    evaluations: Mapping[str, int],
    fit_loss: float,
    svd_error: float | None,
    dtype: str,
) -> dict[str, Any]:
    """Return the recipe as plain values; `request` is the ComposeRequest."""
    return {
        "format": FORMAT,
        "base_model": request.base.title,
        "base_revision": request.base.revision,
        "merge_method": request.merge_method,
        "selection": request.selection,
        "optimizer": request.optimizer,
        "optimizer_resolved": optimizer_resolved,
        "budget": request.budget,
        "seed": request.seed,
        "weight_bound": request.weight_bound,
        "l1_penalty": request.l1_penalty,
        "svd_rank": request.svd_rank,
        "svd_error": svd_error,
        "prompt_format": request.prompt_format,
        "dtype": dtype,
        "evaluations": dict(evaluations),
        "fit_loss": fit_loss,
        "rows": {"fit": len(request.examples), "sha256": hash_rows(request.examples)},
        "parents": [
            {
                "adapter": item.name,
                "revision": item.revision,
                "sha256": item.sha256,
                "weight": item.weight,
                "fit_loss_alone": item.loss_alone,
            }
            for item in ingredients
        ],
        "versions": read_versions(),
    }


def make_card(recipe: Mapping[str, Any], report: Report, *, is_seq2seq: bool) -> str:
    """Return the README.md of the composed adapter, with its YAML head."""
    head = {
        "base_model": recipe["base_model"],
        "library_name": "peft",
        "pipeline_tag": "text2text-generation" if is_seq2seq else "text-generation",
        "tags": ["lora", "composed", "lorahub"],
    }
    lines = ["---", *_yaml(head), "---", "", "# Composed adapter", ""]
    lines += [f"**{report.verdict.headline}** {report.verdict.detail}", ""]
    lines += ["## How it does", "", *_score_table(report), ""]
    lines += ["## What it is made of", "", *_parents_table(recipe), ""]
    lines += ["## How it was made", "", *_method_lines(recipe), ""]
    return "\n".join(lines)


def hash_rows(rows: Sequence[Example]) -> str:
    """Return a hash by which two recipes can tell whether they had the same rows."""
    text = json.dumps([[row.input, row.output] for row in rows], ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that the weights depend on."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _score_table(report: Report) -> list[str]:
    unit = "ROUGE-L" if report.metric == "rougeL" else "exact match"
    side = "held-out" if report.n_held_out else "fit"
    lines = [
        f"| method | {unit}, {side} rows | 95 % interval | loss |",
        "|---|---|---|---|",
    ]
    return lines + [_score_line(row) for row in report.rows]


def _score_line(row: ReportRow) -> str:
    score = row.held_out or row.fit
    figure = f"{score.score:.2f}" if score.correct is None else f"{score.correct}/{score.n}"
    low, high = score.interval
    loss = "" if score.loss is None else f"{score.loss:.3f}"
    return f"| {row.label} | {figure} | {low:.2f} to {high:.2f} | {loss} |"


def _parents_table(recipe: Mapping[str, Any]) -> list[str]:
    lines = ["| adapter | revision | weight |", "|---|---|---|"]
    parents = sorted(recipe["parents"], key=lambda parent: -abs(parent["weight"]))
    for parent in parents:
        if parent["weight"]:
            revision = parent["revision"][:12] or parent["sha256"][:12]
            lines.append(f"| {parent['adapter']} | `{revision}` | {parent['weight']:+.3f} |")
    return lines


def _method_lines(recipe: Mapping[str, Any]) -> list[str]:
    spent = recipe["evaluations"]
    optimizer = recipe["optimizer"]
    if recipe["optimizer_resolved"] not in {"", optimizer}:
        optimizer += f" ({recipe['optimizer_resolved']})"
    lines = [
        (
            f"* Weights of the adapters learned without gradients on {recipe['rows']['fit']} "
            f"rows, after LoraHub ({PAPER})."
        ),
        f"* Candidates: {recipe['selection']}; {spent.get('alone', 0)} adapters were scored alone.",
        (
            f"* Search: {optimizer}, {spent.get('search', 0)} evaluations, seed {recipe['seed']}, "
            f"weights within ±{recipe['weight_bound']:g}, "
            f"penalty {recipe['l1_penalty']:g} mean |w|."
        ),
        f"* Merge: `{recipe['merge_method']}`, {_FORMULAS[recipe['merge_method']]}.",
    ]
    quick = recipe.get("quick_lora")
    if quick:
        lines.append(
            f"* A quick LoRA trained on your examples, with gradients ({quick['steps']} steps of "
            f"AdamW, rank {quick['rank']}), takes part with weight {quick['weight']:+.2f}; its "
            "factors are merged in."
        )
    if recipe["svd_error"] is not None:
        lines.append(f"* Relative error of the SVD: {recipe['svd_error']:.4f}.")
    versions = ", ".join(f"{name} {version}" for name, version in recipe["versions"].items())
    return [*lines, f"* Prompt format: {recipe['prompt_format']}. Versions: {versions}."]


def _yaml(values: Mapping[str, Any]) -> list[str]:
    lines = []
    for key, value in values.items():
        if isinstance(value, list):
            lines += [f"{key}:", *(f"- {item}" for item in value)]
        else:
            lines.append(f"{key}: {json.dumps(value)}")
    return lines
