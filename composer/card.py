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
from composer.report import Report, ReportRow, Score

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
        "similarity": request.similarity,
        "optimizer": request.optimizer,
        "optimizer_resolved": optimizer_resolved,
        "num_workers": request.num_workers,
        "budget": request.budget,
        "seed": request.seed,
        "weight_bound": request.weight_bound,
        "l1_penalty": request.l1_penalty,
        "prior": request.resolved_prior,
        "prior_penalty": request.prior_penalty,
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
    verdict = report.verdict
    lines += [f"**{verdict.headline}** {verdict.detail} {verdict.offer}".rstrip(), ""]
    lines += ["## How it does", "", *_score_table(report), ""]
    lines += ["## What it is made of", "", *_parents_table(recipe), ""]
    lines += _sanity_lines(report)
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
    heads = ["method", f"{unit}, {side} rows", "95 % interval"]
    if report.rows and report.rows[0].fit.rouge_l is not None:
        heads.append("exact match" if report.metric == "rougeL" else "ROUGE-L")
    heads += ["loss", "95 % interval"]
    if report.folds:
        heads.append(f"{unit}, {report.folds} folds")
    lines = [_table_line(heads), f"|{'---|' * len(heads)}"]
    lines += [_table_line(_score_cells(row, report)) for row in report.rows]
    scores = [row.held_out or row.fit for row in report.rows]
    if any(score.interval_kind == "wilson" for score in scores):
        note = "Wilson's where all rows have the same score, else bootstrap"
    else:
        note = "bootstrap"
    return [*lines, "", f"Intervals: {note}, over rows."]


def _score_cells(row: ReportRow, report: Report) -> list[str]:
    score = row.held_out or row.fit
    cells = [row.label, _figure(score), _range(score.interval)]
    if score.rouge_l is not None:
        exact = f"{score.exact}/{score.n}"
        cells.append(exact if report.metric == "rougeL" else f"{score.rouge_l:.2f}")
    cells += ["" if score.loss is None else f"{score.loss:.3f}", _range(score.loss_interval)]
    if report.folds:
        cells.append("" if row.cross_validated is None else _figure(row.cross_validated))
    return cells


def _figure(score: Score) -> str:
    return f"{score.score:.2f}" if score.correct is None else f"{score.correct}/{score.n}"


def _range(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"


def _table_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _parents_table(recipe: Mapping[str, Any]) -> list[str]:
    lines = ["| adapter | revision | weight |", "|---|---|---|"]
    parents = sorted(recipe["parents"], key=lambda parent: -abs(parent["weight"]))
    for parent in parents:
        if parent["weight"]:
            revision = parent["revision"][:12] or parent["sha256"][:12]
            lines.append(f"| {parent['adapter']} | `{revision}` | {parent['weight']:+.3f} |")
    return lines


def _sanity_lines(report: Report) -> list[str]:
    """Say what stands out beside the parents, and that nothing does."""
    sanity = report.sanity
    if sanity is None:
        return []
    notes = sanity.notes or ("Nothing stands out in the sizes of the layers or in the answers.",)
    lines = [f"* It changes the base {sanity.norm_ratio:.2f} times as much as its largest parent."]
    return ["## Beside its parents", "", *lines, *(f"* {note}" for note in notes), ""]


def _method_lines(recipe: Mapping[str, Any]) -> list[str]:
    spent = recipe["evaluations"]
    optimizer = recipe["optimizer"]
    if recipe["optimizer_resolved"] not in {"", optimizer}:
        optimizer += f" ({recipe['optimizer_resolved']})"
    lines = [
        _learning_line(recipe),
        f"* Candidates: {recipe['selection']}; {spent.get('alone', 0)} adapters were scored alone.",
        (
            f"* Search: {optimizer}, {spent.get('search', 0)} evaluations, seed {recipe['seed']}, "
            f"weights within ±{recipe['weight_bound']:g}, "
            f"{_penalty(recipe)}."
        ),
        f"* Merge: `{recipe['merge_method']}`, {_FORMULAS[recipe['merge_method']]}.",
    ]
    if spent.get("folds"):
        lines.append(f"* Cross-validation: {spent['folds']} evaluations more.")
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


def _penalty(recipe: Mapping[str, Any]) -> str:
    if recipe.get("prior") == "start":
        how = "its start s, where that is a mean of the best adapters,"
        return f"held near {how} by {recipe['prior_penalty']:g} sum (w - s)^2"
    if recipe.get("prior") == "mean":
        return f"held near the mean by {recipe['prior_penalty']:g} sum (w - 1/N)^2"
    if recipe.get("prior") == "softmax":
        how = "a mean p of the adapters, the better ones weighing more,"
        return f"held near {how} by {recipe['prior_penalty']:g} sum (w - p)^2"
    return f"penalty {recipe['l1_penalty']:g} mean |w|"


def _learning_line(recipe: Mapping[str, Any]) -> str:
    rows, gradient = recipe["rows"]["fit"], recipe.get("gradient")
    blocks = recipe.get("weight_blocks", 1)
    each = f", one for each of {blocks} blocks of layers; the table shows their means"
    each = each if blocks > 1 else ""
    if not gradient:
        return (
            f"* Weights of the adapters learned without gradients on {rows} rows, after LoraHub "
            f"({PAPER}){each}."
        )
    steps = f"{gradient['steps']} steps of Adam, each counted as {gradient['step_evaluations']}"
    return (
        f"* Weights of the adapters learned with gradients on {rows} rows ({steps} "
        f"evaluations){each}."
    )


def _yaml(values: Mapping[str, Any]) -> list[str]:
    lines = []
    for key, value in values.items():
        if isinstance(value, list):
            lines += [f"{key}:", *(f"- {item}" for item in value)]
        else:
            lines.append(f"{key}: {json.dumps(value)}")
    return lines
