"""Compose LoRA adapters for a task from a few examples: the whole method in one function.

`compose` reads like the method's summary: load the base, select candidates, search their weights on
the fit rows, merge, score everything on the held-out rows, write one PEFT adapter with its card and
recipe. Each step is a module of its own; who calls this, where jobs are stored and who sees the
result is left to the caller.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from composer.adapter import LoraAdapter
from composer.base_model import BaseModelCache, BaseModelSource, Dtype, LoadedBase, load_base
from composer.card import Ingredient, make_card, make_recipe
from composer.compatibility import check_compatibility
from composer.errors import IncompatibleAdapters, SearchError, Stopped
from composer.examples import Example, ExampleSplit, split_examples
from composer.inspection import AdapterSummary, inspect_adapter
from composer.judging import Judge, choose_metric, judge_methods
from composer.limits import DEFAULT
from composer.merging import Merged, merge_adapters
from composer.progress import (
    AnswersScored,
    CandidateScored,
    EvaluationScored,
    LogLine,
    OnProgress,
    PhaseStarted,
    Progress,
    ReferenceScored,
    ShouldStop,
    ignore,
    never,
)
from composer.report import Method, Report, make_report
from composer.scoring import AnswerLogits, FloatArray, Scorer, encode_examples
from composer.search import Evaluation, SearchSettings, WeightSearch, require_optimizer
from composer.selection import PoolMember, Selection, keep_best, preselect, score_alone
from composer.stacking import AdapterStack
from composer.writing import beside, require_free, room

__all__ = [
    "AnswersScored",
    "CandidateScored",
    "ComposeRequest",
    "Composition",
    "EvaluationScored",
    "LogLine",
    "PhaseStarted",
    "PoolMember",
    "Progress",
    "ReferenceScored",
    "compose",
    "ignore",
    "never",
]

# Contenders that are scored once more in float32, since bfloat16 is noisy.
CONTENDERS = 4
# Above this size a second copy of the base in float32 is not worth its memory.
CONFIRM_BYTES = 2 * 1024**3
LABELS: dict[Method, str] = {
    "base": "Base, zero-shot",
    "prompting": "Base, prompted with the fit rows",
    "uniform": "Uniform mean",
    "best_single": "Best single adapter",
    "composed": "Composed",
}


@dataclass(frozen=True)
class ComposeRequest:
    """Everything one composition needs; the defaults are what our measurements say is best.

    `held_out` gives separate rows to judge on; without it `examples` are split, `n_fit` of them to
    fit (None: by their number). `hand_weights` skips the search: adapter name to weight.
    """

    base: BaseModelSource
    pool: tuple[PoolMember, ...]
    examples: tuple[Example, ...]
    output_folder: Path
    prompt_format: Literal["plain", "chat"] = "plain"
    merge_method: Literal["concat", "factor", "svd"] = "concat"
    selection: Selection = "screened"
    n_candidates: int = 8
    optimizer: str = "greedy+gn"
    budget: int = 40
    seed: int = 42
    n_fit: int | None = None
    held_out: tuple[Example, ...] | None = None
    weight_bound: float = 1.5
    l1_penalty: float = 0.05
    svd_rank: int | None = None
    hand_weights: Mapping[str, float] | None = None
    prompting: bool = False
    dtype: Dtype = "auto"
    device: str = "auto"
    checkpoint: Path | None = None
    max_new_tokens: int = 64
    exact_case: bool = False
    metric: Literal["auto", "exact_match", "rougeL"] = "auto"
    base_cache: BaseModelCache | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Composition:
    """The result: a folder with one PEFT adapter, and all that is known about how it came about.

    `names` and `weights` list the candidates of the search, zero weights included.
    """

    folder: Path
    names: tuple[str, ...]
    weights: tuple[float, ...]
    merge_method: str
    optimizer_resolved: str
    evaluations_spent: int
    report: Report
    recipe: dict[str, Any]
    card: str
    svd_error: float | None
    summary: AdapterSummary


def compose(
    request: ComposeRequest,
    on_progress: OnProgress = ignore,
    should_stop: ShouldStop = never,
) -> Composition:
    """Find weights for a pool of adapters on a few rows and write the adapter they make.

    Args:
        request: the pool, the rows and how to search.
        on_progress: hears of every step; see `composer.progress`.
        should_stop: asked between forward passes.

    Raises:
        ComposerError: with a text for the user; nothing is left in the output folder then.
        Stopped: as asked; the checkpoint, if there is one, is kept.
    """
    _check(request)
    work = _Work(request, _split(request), on_progress, should_stop)
    summaries = _inspect(request)
    base = _load_base(work)
    pool = _load_adapters(work, base, summaries)
    candidates, alone = _select(work, base, pool)
    found = _search(work, base, candidates, alone)
    merged = _merge(work, candidates, found.weights)
    report = _judge(work, base, candidates, merged)
    return _write(work, base, _Outcome(candidates, alone, found, merged, report))


@dataclass(frozen=True)
class _Work:
    """The request with its rows split, and whom to tell and ask."""

    request: ComposeRequest
    split: ExampleSplit
    on_progress: OnProgress
    should_stop: ShouldStop

    def phase(self, name: Any, message: str, total: int | None = None) -> None:
        """Begin a part of the work, unless the caller wants to stop."""
        if self.should_stop():
            raise Stopped("Stopped by request.")
        self.on_progress(PhaseStarted(name, message, total))


@dataclass(frozen=True)
class _Found:
    """What the search ended with."""

    weights: tuple[float, ...]
    fit_loss: float
    optimizer_resolved: str
    n_evaluations: int


@dataclass(frozen=True)
class _Outcome:
    """Everything that goes into the files."""

    candidates: list[LoraAdapter]  # the best alone first
    alone: dict[str, float]
    found: _Found
    merged: Merged
    report: Report


class _FitRows:
    """The search's objective: the mean loss of the fit rows under stacked candidates."""

    def __init__(self, stack: AdapterStack, scorer: Scorer) -> None:
        self._stack = stack
        self._scorer = scorer

    def losses(self, weights: FloatArray) -> FloatArray:
        return np.asarray(self._scorer.losses(self._stack, weights).mean(axis=1))

    def answer_logits(self, weights: FloatArray) -> AnswerLogits:
        return self._scorer.answer_logits(self._stack, weights)


# ---- before anything is loaded ------------------------------------------------------------------


def _check(request: ComposeRequest) -> None:
    if not request.pool:
        raise IncompatibleAdapters("There is no adapter to compose. Choose at least one.")
    if request.budget < 1:
        raise SearchError(f"The budget must be at least 1 evaluation, not {request.budget}.")
    if request.n_candidates < 1:
        raise SearchError(f"At least 1 candidate is needed, not {request.n_candidates}.")
    require_optimizer(request.optimizer)
    strangers = set(request.hand_weights or {}) - {member.name for member in request.pool}
    if strangers:
        names = ", ".join(sorted(strangers))
        raise SearchError(f"Weights were given for {names}, which is not in the pool.")
    require_free(request.output_folder)


def _split(request: ComposeRequest) -> ExampleSplit:
    if request.held_out is None:
        return split_examples(request.examples, n_fit=request.n_fit)
    n_fit = len(request.examples)
    return ExampleSplit(
        fit=request.examples,
        held_out=request.held_out,
        fit_indices=tuple(range(n_fit)),
        held_out_indices=tuple(range(n_fit, n_fit + len(request.held_out))),
    )


def _inspect(request: ComposeRequest) -> dict[str, AdapterSummary]:
    """Read what every pool member is, and refuse a merge method that they do not allow."""
    summaries = {member.name: inspect_adapter(member.folder, None) for member in request.pool}
    if len(summaries) < len(request.pool):
        raise IncompatibleAdapters("Two adapters of the pool have the same name. Rename one.")
    check_compatibility(summaries).require(request.merge_method)
    return summaries


# ---- the steps, in order ------------------------------------------------------------------------


def _load_base(work: _Work, dtype: Dtype | None = None) -> LoadedBase:
    request = work.request
    chosen = dtype or request.dtype
    if dtype is None:
        work.phase("loading", f"loading {request.base.title}")
    if request.base_cache is not None:
        return request.base_cache.load(request.base, dtype=chosen, device=request.device)
    return load_base(request.base, dtype=chosen, device=request.device)


def _load_adapters(
    work: _Work, base: LoadedBase, summaries: Mapping[str, AdapterSummary]
) -> list[LoraAdapter]:
    request = work.request
    hand = request.hand_weights
    if hand is None:
        members = preselect(
            request.pool,
            work.split.fit,
            request.selection,
            n_candidates=request.n_candidates,
            seed=request.seed,
        )
    else:
        members = [member for member in request.pool if hand.get(member.name)]
    return [
        LoraAdapter.load(
            member.folder,
            base.module_table,
            name=member.name,
            summary=summaries[member.name],
        )
        for member in members
    ]


def _select(
    work: _Work, base: LoadedBase, pool: list[LoraAdapter]
) -> tuple[list[LoraAdapter], dict[str, float]]:
    """Score every loaded adapter alone; keep the best where the selection says so."""
    total = len(pool)
    work.phase("screening", f"scoring {total} adapters alone on {len(work.split.fit)} rows", total)

    def on_scored(name: str, loss: float, done: int) -> None:
        work.on_progress(CandidateScored(name, loss, done, total))

    alone = score_alone(base, pool, _fit_scorer(work, base), on_scored=on_scored)
    screened = work.request.selection == "screened" and work.request.hand_weights is None
    candidates = keep_best(pool, alone, work.request.n_candidates if screened else total)
    best = candidates[0]
    work.on_progress(ReferenceScored("best_single", alone[best.name]))
    work.on_progress(LogLine(f"best alone: {best.name}, loss {alone[best.name]:.3f}"))
    return candidates, alone


def _search(
    work: _Work, base: LoadedBase, candidates: list[LoraAdapter], alone: Mapping[str, float]
) -> _Found:
    request = work.request
    space: Literal["factor", "delta"] = "factor" if request.merge_method == "factor" else "delta"
    with AdapterStack(base, candidates, space=space) as stack:
        objective = _FitRows(stack, _fit_scorer(work, base))
        if request.hand_weights is not None:
            return _take_hand_weights(work, objective, candidates)
        settings = SearchSettings(
            optimizer=request.optimizer,
            budget=request.budget,
            seed=request.seed,
            weight_bound=request.weight_bound,
            l1_penalty=request.l1_penalty,
            start=_start(request, len(candidates)),
        )
        search = WeightSearch(
            objective,
            len(candidates),
            settings,
            checkpoint=request.checkpoint,
            fingerprint=_fingerprint(work, base, candidates),
            should_stop=work.should_stop,
        )
        work.phase(
            "searching",
            f"searching {len(candidates)} weights with {request.optimizer}, "
            f"{request.budget} evaluations",
            request.budget,
        )
        _tell_references(work, objective, len(candidates))
        _run(work, search)
    best = _confirm(work, base, candidates, search)
    return _Found(best.weights, best.fit_loss, search.optimizer_resolved, len(search.history))


def _merge(work: _Work, candidates: list[LoraAdapter], weights: Sequence[float]) -> Merged:
    request = work.request
    work.phase("merging", f"merging by {request.merge_method}")
    method, rank = request.merge_method, request.svd_rank
    if method == "concat" and _rank_sum(candidates, weights) > DEFAULT.rank:
        work.on_progress(
            LogLine(
                f"The ranks add up to {_rank_sum(candidates, weights)}, more than the "
                f"{DEFAULT.rank} that loaders accept: cut to {DEFAULT.rank} by svd."
            )
        )
        method, rank = "svd", DEFAULT.rank
    return merge_adapters(candidates, weights, method, svd_rank=rank)


def _judge(work: _Work, base: LoadedBase, candidates: list[LoraAdapter], merged: Merged) -> Report:
    request = work.request
    rows = len(work.split.fit) + len(work.split.held_out)
    work.phase("scoring", f"answering {rows} rows with each method", rows)
    uniform = merge_adapters(
        candidates, [1 / len(candidates)] * len(candidates), request.merge_method
    )
    methods: dict[Method, LoraAdapter | None] = {
        "base": None,
        "uniform": replace(uniform.adapter, name="uniform"),
        "best_single": candidates[0],
        "composed": merged.adapter,
    }
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
    return make_report(work.split, results, labels, metric=metric, exact_case=request.exact_case)


def _write(work: _Work, base: LoadedBase, outcome: _Outcome) -> Composition:
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
        names=tuple(adapter.name for adapter in outcome.candidates),
        weights=found.weights,
        merge_method=request.merge_method,
        optimizer_resolved=found.optimizer_resolved,
        evaluations_spent=len(outcome.alone) + found.n_evaluations,
        report=outcome.report,
        recipe=recipe,
        card=card,
        svd_error=outcome.merged.svd_error,
        summary=summary,
    )


# ---- parts of the steps -------------------------------------------------------------------------


def _fit_scorer(work: _Work, base: LoadedBase) -> Scorer:
    rows = encode_examples(base, work.split.fit, work.request.prompt_format)
    return Scorer(base, rows, should_stop=work.should_stop)


def _start(request: ComposeRequest, n_candidates: int) -> tuple[float, ...] | None:
    """Start at the best single adapter where candidates were ranked, else at zero as LoraHub."""
    if request.selection != "screened":
        return None
    return (1.0, *[0.0] * (n_candidates - 1))  # the best alone comes first


def _tell_references(work: _Work, objective: _FitRows, n_candidates: int) -> None:
    weights = np.array([np.zeros(n_candidates), np.full(n_candidates, 1 / n_candidates)])
    base_loss, uniform_loss = objective.losses(weights)
    work.on_progress(ReferenceScored("base", float(base_loss)))
    work.on_progress(ReferenceScored("uniform", float(uniform_loss)))


def _run(work: _Work, search: WeightSearch) -> None:
    best = np.inf
    for evaluation in search.evaluations():
        is_best = evaluation.loss < best
        best = min(best, evaluation.loss)
        work.on_progress(
            EvaluationScored(
                number=evaluation.number,
                budget=work.request.budget,
                weights=evaluation.weights,
                loss=evaluation.loss,
                fit_loss=evaluation.fit_loss,
                is_best=is_best,
            )
        )


def _take_hand_weights(work: _Work, objective: _FitRows, candidates: list[LoraAdapter]) -> _Found:
    """Score the user's own weights once, beside the base."""
    hand = work.request.hand_weights or {}
    weights = np.array([[0.0] * len(candidates), [hand[item.name] for item in candidates]])
    work.phase("searching", "scoring the weights set by hand", 1)
    _tell_references(work, objective, len(candidates))
    losses = objective.losses(weights)
    for number, (vector, loss) in enumerate(zip(weights, losses, strict=True)):
        work.on_progress(
            EvaluationScored(
                number, 1, tuple(map(float, vector)), float(loss), float(loss), is_best=number == 1
            )
        )
    return _Found(tuple(map(float, weights[1])), float(losses[1]), "by hand", len(losses))


def _confirm(
    work: _Work, base: LoadedBase, candidates: list[LoraAdapter], search: WeightSearch
) -> Evaluation:
    """Score the last contenders once more in float32: bfloat16 moves with the batch's layout."""
    if base.dtype.itemsize >= 4 or base.n_bytes > CONFIRM_BYTES:  # noqa: PLR2004 - float32
        return search.best
    ranked = sorted(search.history, key=lambda item: (item.loss, item.number))
    contenders = ranked[:CONTENDERS]
    exact = _load_base(work, "float32")
    weights = np.array([item.weights for item in contenders])
    space: Literal["factor", "delta"] = (
        "factor" if work.request.merge_method == "factor" else "delta"
    )
    with AdapterStack(exact, candidates, space=space) as stack:
        fit = _FitRows(stack, _fit_scorer(work, exact)).losses(weights)
    penalty = np.array([item.loss - item.fit_loss for item in contenders])
    best = int(np.argmin(np.where(np.isfinite(fit), fit + penalty, np.inf)))
    return replace(contenders[best], fit_loss=float(fit[best]))


def _rank_sum(candidates: Sequence[LoraAdapter], weights: Sequence[float]) -> int:
    ranks: dict[str, int] = {}
    for adapter, weight in zip(candidates, weights, strict=True):
        for path, layer in adapter.layers.items() if weight else ():
            ranks[path] = ranks.get(path, 0) + layer.rank
    return max(ranks.values(), default=0)


def _fingerprint(work: _Work, base: LoadedBase, candidates: Sequence[LoraAdapter]) -> str:
    """Name what the losses depend on: a checkpoint of anything else is not resumed."""
    request = work.request
    revisions = {member.name: member.revision for member in request.pool}
    parts = [
        request.base,
        base.dtype,
        request.merge_method,
        request.prompt_format,
        [(item.name, revisions[item.name]) for item in candidates],
        work.split.fit,
    ]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _recipe(work: _Work, base: LoadedBase, outcome: _Outcome) -> dict[str, Any]:
    members = {member.name: member for member in work.request.pool}
    ingredients = [
        Ingredient(
            name=adapter.name,
            revision=members[adapter.name].revision,
            sha256=inspect_adapter(members[adapter.name].folder, None).weights_sha256,
            weight=weight,
            loss_alone=outcome.alone.get(adapter.name),
        )
        for adapter, weight in zip(outcome.candidates, outcome.found.weights, strict=True)
    ]
    return make_recipe(
        replace(work.request, examples=work.split.fit),
        ingredients,
        optimizer_resolved=outcome.found.optimizer_resolved,
        evaluations={"alone": len(outcome.alone), "search": outcome.found.n_evaluations},
        fit_loss=outcome.found.fit_loss,
        svd_error=outcome.merged.svd_error,
        dtype=str(base.dtype).removeprefix("torch."),
    )
