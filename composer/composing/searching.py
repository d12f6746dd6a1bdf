"""The search for the weights of the candidates, or the weights that the user set."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from composer.adapter import LoraAdapter
from composer.base_model import LoadedBase
from composer.composing.preparing import Work, fit_scorer
from composer.composing.request import ComposeRequest
from composer.errors import SearchError
from composer.gradient import (
    GRADIENT,
    STEP_EVALUATIONS,
    GradientSearch,
    GradientSettings,
    split_into_blocks,
)
from composer.progress import (
    EvaluationScored,
    ReferenceScored,
)
from composer.scoring import AnswerLogits, FloatArray, Scorer
from composer.search import (
    WORST_LOSS,
    Evaluation,
    SearchSettings,
    WeightSearch,
    finite_losses,
)
from composer.stacking import AdapterStack
from composer.widening import in_float32

# Contenders that are scored once more in float32, since bfloat16 is noisy.
CONTENDERS = 4
# How fast an adapter's share of the softmax prior falls with its loss alone, in nats.
TEMPERATURE = 0.5
# Above this size the float32 passes take longer than they are worth.
CONFIRM_BYTES = 2 * 1024**3


@dataclass(frozen=True)
class Found:
    """What the search ended with.

    Where layers are weighed in blocks, `weights` are the means over the blocks, and `part_weights`
    belong to `parts`, the candidates cut block by block.
    """

    weights: tuple[float, ...]
    fit_loss: float
    optimizer_resolved: str
    n_evaluations: int
    parts: tuple[LoraAdapter, ...] = ()
    part_weights: tuple[float, ...] = ()
    gradient: dict[str, Any] | None = None  # for the recipe, where gradients were used

    def weighed(
        self, candidates: Sequence[LoraAdapter]
    ) -> tuple[list[LoraAdapter], tuple[float, ...]]:
        """Return what is to be summed and its weights: the candidates, or their blocks."""
        if any(self.part_weights):
            return list(self.parts), self.part_weights
        return list(candidates), self.weights


def find_weights(
    work: Work, base: LoadedBase, candidates: list[LoraAdapter], alone: Mapping[str, float]
) -> Found:
    """Search from the best single adapter, or take the weights set by hand."""
    request = work.request
    space: Literal["factor", "delta"] = "factor" if request.merge_method == "factor" else "delta"
    if request.optimizer == GRADIENT and request.hand_weights is None:
        return _learn_weights(work, base, candidates)
    with AdapterStack(base, candidates, space=space) as stack:
        objective = _FitRows(stack, fit_scorer(work, base))
        if request.hand_weights is not None:
            return _take_hand_weights(work, objective, candidates)
        prior = _prior(request, candidates, alone)
        settings = SearchSettings(
            optimizer=request.optimizer,
            budget=request.budget,
            seed=request.seed,
            weight_bound=request.weight_bound,
            l1_penalty=request.l1_penalty,
            start=prior or _start(request, len(candidates)),
            num_workers=request.num_workers,
            prior=prior,
            prior_penalty=request.prior_penalty,
        )
        search = WeightSearch(
            objective,
            len(candidates),
            settings,
            checkpoint=request.checkpoint,
            fingerprint=fingerprint_of(work, base, candidates),
            should_stop=work.should_stop,
        )
        work.phase(
            "searching",
            f"searching {len(candidates)} weights with {request.optimizer}, "
            f"{request.budget} evaluations",
            request.budget,
        )
        _tell_uniform(work, objective, len(candidates))
        _run(work, search, len(candidates))
    best = _confirm(work, base, candidates, search)
    return Found(best.weights, best.fit_loss, search.optimizer_resolved, len(search.history))


def _learn_weights(work: Work, base: LoadedBase, candidates: list[LoraAdapter]) -> Found:
    """Learn the weights with gradients: one an adapter, or one for each block of its layers."""
    request, n = work.request, len(candidates)
    blocks = request.weight_blocks
    parts = candidates
    if blocks > 1:
        parts = split_into_blocks(candidates, base.module_table, blocks)
    settings = GradientSettings(
        budget=request.budget,
        weight_bound=request.weight_bound,
        l1_penalty=request.l1_penalty,
        start=(_start(request, n) or (0.0,) * n) * blocks,
    )
    with AdapterStack(base, parts) as stack:
        scorer = fit_scorer(work, base)
        objective = _FitRows(stack, scorer)
        search = GradientSearch(
            base,
            scorer.examples,
            parts,
            objective,
            settings,
            checkpoint=request.checkpoint,
            fingerprint=fingerprint_of(work, base, candidates),
            should_stop=work.should_stop,
        )
        work.phase(
            "searching",
            f"learning {len(parts)} weights with gradients in {settings.steps} steps, "
            f"each counted as {STEP_EVALUATIONS} evaluations",
            request.budget,
        )
        _tell_uniform(work, objective, n, blocks)
        _run(work, search, n)
    best = _confirm(work, base, parts, search)
    by_block = np.array(best.weights).reshape(blocks, n)
    facts = {
        "steps": search.steps,
        "step_evaluations": STEP_EVALUATIONS,
        "learning_rate": settings.learning_rate,
        "weight_blocks": blocks,
        "block_weights": {
            item.name: by_block[:, i].tolist() for i, item in enumerate(candidates) if blocks > 1
        },
    }
    return Found(
        tuple(map(float, by_block.mean(axis=0))),
        best.fit_loss,
        search.optimizer_resolved,
        search.spent,
        parts=tuple(parts) if blocks > 1 else (),
        part_weights=best.weights if blocks > 1 else (),
        gradient=facts,
    )


class _FitRows:
    """The search's objective: the mean loss of the fit rows under stacked candidates."""

    def __init__(self, stack: AdapterStack, scorer: Scorer) -> None:
        self._stack = stack
        self._scorer = scorer

    def losses(self, weights: FloatArray) -> FloatArray:
        return finite_losses(np.asarray(self._scorer.losses(self._stack, weights).mean(axis=1)))

    def answer_logits(self, weights: FloatArray) -> AnswerLogits:
        return self._scorer.answer_logits(self._stack, weights)


def _start(request: ComposeRequest, n_candidates: int) -> tuple[float, ...] | None:
    """Start at the best single adapter, or unranked at zero as LoraHub."""
    if request.selection != "screened":
        return None
    return (1.0, *[0.0] * (n_candidates - 1))  # the best alone comes first


def _prior(
    request: ComposeRequest, candidates: Sequence[LoraAdapter], alone: Mapping[str, float]
) -> tuple[float, ...] | None:
    """Return the weights that the penalty draws to, unless it is LoraHub's, which draws to zero."""
    if request.resolved_prior == "zero":
        return None
    if request.resolved_prior == "mean":
        return (1 / len(candidates),) * len(candidates)
    return softmax_prior([alone[item.name] for item in candidates])


def softmax_prior(losses: Sequence[float]) -> tuple[float, ...]:
    """Return shares proportional to `exp(-loss / TEMPERATURE)` of the losses alone, in nats.

    They are rounded, so that a resumed search asks the same although losses differ in their last
    digits.
    """
    shares = np.exp(-(np.array(losses) - min(losses)) / TEMPERATURE)
    return tuple(round(float(share), 3) for share in shares / shares.sum())


def _tell_uniform(work: Work, objective: _FitRows, n_candidates: int, n_blocks: int = 1) -> None:
    (loss,) = objective.losses(np.full((1, n_candidates * n_blocks), 1 / n_candidates))
    work.on_progress(ReferenceScored("uniform", float(loss)))


def _run(work: Work, search: WeightSearch | GradientSearch, n_candidates: int) -> None:
    """Tell of every evaluation, the base's as a reference too; of blocks' weights their means."""
    best = np.inf
    for evaluation in search.evaluations():
        if evaluation.number == 0:
            work.on_progress(ReferenceScored("base", evaluation.fit_loss))
        is_best = evaluation.loss < best
        best = min(best, evaluation.loss)
        work.on_progress(
            EvaluationScored(
                number=evaluation.number,
                budget=work.request.budget,
                weights=tuple(_mean_weights(evaluation.weights, n_candidates)),
                loss=evaluation.loss,
                fit_loss=evaluation.fit_loss,
                is_best=is_best,
            )
        )


def _mean_weights(weights: Sequence[float], n_candidates: int) -> list[float]:
    means = np.array(weights).reshape(-1, n_candidates).mean(axis=0)
    return [float(weight) for weight in means]


def _take_hand_weights(work: Work, objective: _FitRows, candidates: list[LoraAdapter]) -> Found:
    """Score the user's own weights once, beside the base."""
    hand = work.request.hand_weights or {}
    weights = np.array([[0.0] * len(candidates), [hand[item.name] for item in candidates]])
    work.phase("searching", "scoring the weights set by hand", 1)
    _tell_uniform(work, objective, len(candidates))
    losses = objective.losses(weights)
    work.on_progress(ReferenceScored("base", float(losses[0])))
    if losses[1] >= WORST_LOSS:
        raise SearchError("The loss of the weights set by hand is not a number. Make them smaller.")
    for number, (vector, loss) in enumerate(zip(weights, losses, strict=True)):
        work.on_progress(
            EvaluationScored(
                number, 1, tuple(map(float, vector)), float(loss), float(loss), is_best=number == 1
            )
        )
    return Found(tuple(map(float, weights[1])), float(losses[1]), "by hand", len(losses))


def _confirm(
    work: Work,
    base: LoadedBase,
    candidates: list[LoraAdapter],
    search: WeightSearch | GradientSearch,
) -> Evaluation:
    """Score the last contenders once more in float32: bfloat16 moves with the batch's layout."""
    if base.dtype.itemsize >= 4 or base.n_bytes > CONFIRM_BYTES:  # noqa: PLR2004 - float32
        return search.best
    ranked = sorted(search.history, key=lambda item: (item.loss, item.number))
    contenders = ranked[:CONTENDERS]
    weights = np.array([item.weights for item in contenders])
    space: Literal["factor", "delta"] = (
        "factor" if work.request.merge_method == "factor" else "delta"
    )
    with in_float32(base) as exact, AdapterStack(exact, candidates, space=space) as stack:
        fit = _FitRows(stack, fit_scorer(work, exact)).losses(weights)
    penalty = np.array([item.loss - item.fit_loss for item in contenders])
    best = int(np.argmin(fit + penalty))
    return replace(contenders[best], fit_loss=float(fit[best]))


def fingerprint_of(work: Work, base: LoadedBase, candidates: Sequence[LoraAdapter]) -> str:
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
