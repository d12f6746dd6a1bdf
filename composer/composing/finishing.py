"""After the search: merge, judge every method on the same rows, write the folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from composer.adapter import LoraAdapter
from composer.base_model import LoadedBase
from composer.card import Ingredient, make_card, make_recipe
from composer.composing.preparing import Work
from composer.composing.request import Composition
from composer.composing.searching import Found
from composer.composing.training import QuickLora
from composer.gradient import GRADIENT
from composer.inspection import AdapterSummary, inspect_adapter
from composer.judging import Judge, judge_methods
from composer.limits import DEFAULT
from composer.merging import Merged, merge_adapters
from composer.progress import LogLine
from composer.report import (
    CrossValidation,
    Method,
    Report,
    Sanity,
    choose_metric,
    make_report,
)
from composer.sanity import check_sanity
from composer.writing import beside, room

LABELS: dict[Method, str] = {
    "base": "Base, zero-shot",
    "prompting": "Base, prompted with the fit rows",
    "uniform": "Uniform mean",
    "best_single": "Best single adapter",
    "quick_lora": "LoRA trained on your rows alone",
    "composed": "Composed",
}


@dataclass(frozen=True)
class Outcome:
    """Everything that goes into the files."""

    candidates: list[LoraAdapter]  # the best alone first
    summaries: Mapping[str, AdapterSummary]
    alone: dict[str, float]
    found: Found
    merged: Merged
    report: Report
    quick: QuickLora | None = None
    folded: CrossValidation | None = None

    @property
    def evaluations(self) -> dict[str, int]:
        """Return how many weight vectors were scored on rows, and what for."""
        spent = {"alone": len(self.alone), "search": self.found.n_evaluations}
        return spent if self.folded is None else spent | {"folds": self.folded.evaluations}


def merge_found(work: Work, candidates: list[LoraAdapter], found: Found) -> Merged:
    """Merge by the chosen method; ranks that loaders refuse are cut by an SVD, and that is said."""
    request = work.request
    parts, weights = found.weighed(candidates)
    work.phase("merging", f"merging by {request.merge_method}")
    method, rank = request.merge_method, request.svd_rank
    if method == "concat" and _rank_sum(parts, weights) > DEFAULT.rank:
        work.on_progress(
            LogLine(
                f"The ranks add up to {_rank_sum(parts, weights)}, more than the "
                f"{DEFAULT.rank} that loaders accept: cut to {DEFAULT.rank} by svd."
            )
        )
        method, rank = "svd", DEFAULT.rank
    return merge_adapters(parts, weights, method, svd_rank=rank)


def judge_all(
    work: Work,
    base: LoadedBase,
    candidates: list[LoraAdapter],
    merged: Merged,
    quick: QuickLora | None = None,
    folded: CrossValidation | None = None,
) -> Report:
    """Answer and score all rows with the base, the references and the adapter to be written."""
    request = work.request
    rows = len(work.split.fit) + len(work.split.held_out)
    work.phase("scoring", f"answering {rows} rows with each method", rows)
    methods = methods_of(work, candidates, merged)
    if quick is not None:
        methods["quick_lora"] = replace(quick.alone, name="alone")
    judge = Judge(
        base,
        work.split,
        request.prompt_format,
        request.max_new_tokens,
        work.on_progress,
        work.should_stop,
    )
    results = judge_methods(judge, methods, prompting=request.prompting)
    examples = [*work.split.fit, *work.split.held_out]
    metric = choose_metric(examples) if request.metric == "auto" else request.metric
    labels = {**LABELS, "best_single": f"Best single: {candidates[0].name}"}
    if request.optimizer == GRADIENT and request.hand_weights is None:
        labels["composed"] = "Composed, weights learned with gradients"
    return make_report(
        work.split, results, labels, metric=metric, exact_case=request.exact_case, folded=folded
    )


def look_over(
    work: Work,
    base: LoadedBase,
    parents: Sequence[LoraAdapter],
    found: Found,
    merged: Merged,
) -> Sanity | None:
    """Compare the adapter to be written with the parents that take part; None if none does."""
    # Weights by blocks of layers may cancel out in their mean: all candidates have a part then.
    weights = (1.0,) * len(parents) if any(found.part_weights) else found.weights
    taking_part = [item for item, weight in zip(parents, weights, strict=False) if weight]
    if not taking_part:
        return None
    prompt_format = work.request.prompt_format
    return check_sanity(base, merged.adapter, taking_part, prompt_format, work.should_stop)


def methods_of(
    work: Work, candidates: list[LoraAdapter], merged: Merged
) -> dict[Method, LoraAdapter | None]:
    """Return what is compared: the base, the plain mean, the best single one, the composition."""
    uniform = merge_adapters(
        candidates, [1 / len(candidates)] * len(candidates), work.request.merge_method
    )
    return {
        "base": None,
        "uniform": replace(uniform.adapter, name="uniform"),
        "best_single": candidates[0],
        "composed": merged.adapter,
    }


def write_result(work: Work, base: LoadedBase, outcome: Outcome) -> Composition:
    """Write everything into a folder beside the target, then rename: whole or not at all."""
    request, found = work.request, outcome.found
    work.phase("writing", "writing the adapter, its card and its recipe")
    recipe = _recipe(work, base, outcome)
    card = make_card(recipe, outcome.report, is_seq2seq=base.is_seq2seq)
    adapter = replace(outcome.merged.adapter, base_name=request.base.title)
    with room(), beside(request.output_folder) as folder:
        adapter.save(folder, base.module_table)
        (folder / "README.md").write_text(card, encoding="utf-8")
        text = json.dumps(recipe, indent=2, sort_keys=True)
        (folder / "recipe.json").write_text(f"{text}\n", encoding="utf-8")
        summary = inspect_adapter(folder, base.module_table, base_name=request.base.title)
    return Composition(
        folder=request.output_folder,
        names=_names(outcome),
        weights=found.weights,
        merge_method=request.merge_method,
        optimizer_resolved=found.optimizer_resolved,
        evaluations_spent=sum(outcome.evaluations.values()),
        report=outcome.report,
        recipe=recipe,
        card=card,
        svd_error=outcome.merged.svd_error,
        summary=summary,
    )


def _names(outcome: Outcome) -> tuple[str, ...]:
    trained = [] if outcome.quick is None else [outcome.quick.adapter]
    return tuple(adapter.name for adapter in [*outcome.candidates, *trained])


def _rank_sum(candidates: Sequence[LoraAdapter], weights: Sequence[float]) -> int:
    ranks: dict[str, int] = {}
    for adapter, weight in zip(candidates, weights, strict=True):
        for path, layer in adapter.layers.items() if weight else ():
            ranks[path] = ranks.get(path, 0) + layer.rank
    return max(ranks.values(), default=0)


def _recipe(work: Work, base: LoadedBase, outcome: Outcome) -> dict[str, Any]:
    members = {member.name: member for member in work.request.pool}
    ingredients = [
        Ingredient(
            name=adapter.name,
            revision=members[adapter.name].revision,
            sha256=outcome.summaries[adapter.name].weights_sha256,
            weight=weight,
            loss_alone=outcome.alone.get(adapter.name),
        )
        # The last weight may be the quick LoRA's, which is no parent.
        for adapter, weight in zip(outcome.candidates, outcome.found.weights, strict=False)
    ]
    recipe = make_recipe(
        replace(work.request, examples=work.split.fit),
        ingredients,
        optimizer_resolved=outcome.found.optimizer_resolved,
        evaluations=outcome.evaluations,
        fit_loss=outcome.found.fit_loss,
        svd_error=outcome.merged.svd_error,
        dtype=str(base.dtype).removeprefix("torch."),
    )
    return recipe | {
        "quick_lora": outcome.quick.facts if outcome.quick else None,
        "gradient": outcome.found.gradient,
        "weight_blocks": outcome.found.blocks,
        "block_weights": outcome.found.weights_by_block([item.name for item in outcome.candidates]),
    }
