"""The search for the weights of the candidates, or the weights that the user set."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from composer.adapter import LoraAdapter
from composer.base_model import LoadedBase
from composer.blocks import most_blocks, split_into_blocks
from composer.composing.preparing import Work, fit_scorer
from composer.composing.request import ComposeRequest
from composer.errors import SearchError
from composer.gradient import GRADIENT, STEP_EVALUATIONS, GradientSearch, GradientSettings
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
# Of how many of the best adapters a mean may be where a search starts.
MEANS_OF = (2, 3, 4)
# Candidates weighed apart in the blocks of layers: one for so many fit rows, but at least so many.
# Both weights of all candidates fit five rows too well, and others worse.
APART_ROWS, LEAST_APART = 2, 4
# Above this size the float32 passes take longer than they are worth.
CONFIRM_BYTES = 2 * 1024**3


@dataclass(frozen=True)
class Found:
    """What the search ended with.

    Where layers are weighed in blocks, `weights` are the means over the blocks, and `part_weights`
    belong to `parts`, the candidates cut block by block, behind which a quick LoRA may stand.
    """

    weights: tuple[float, ...]
    fit_loss: float
    optimizer_resolved: str
    n_evaluations: int
    parts: tuple[LoraAdapter, ...] = ()
    part_weights: tuple[float, ...] = ()
    blocks: int = 1
    gradient: dict[str, Any] | None = None  # for the recipe, where gradients were used

    def weights_by_block(self, names: Sequence[str]) -> dict[str, list[float]]:
        """Return each candidate's weights, block by block; empty if there is but one block."""
        if self.blocks == 1:
            return {}
        by_block = np.array(self.part_weights[: self.blocks * len(names)]).reshape(self.blocks, -1)
        return {name: by_block[:, i].tolist() for i, name in enumerate(names)}

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
    """Search for the weights, or take those set by hand."""
    request = work.request
    if request.hand_weights is not None:
        with AdapterStack(base, candidates, space=_space(request)) as stack:
            return _take_hand_weights(work, _FitRows(stack, fit_scorer(work, base)), candidates)
    # More blocks asked for than there are layers are an error, told by the split.
    blocks = request.weight_blocks or most_blocks(base.module_table, request.resolved_blocks)
    parts = candidates
    if blocks > 1:
        parts = split_into_blocks(candidates, base.module_table, blocks)
    if request.optimizer == GRADIENT:
        best, resolved, spent, facts = _learn(work, base, candidates, parts)
    else:
        best, resolved, spent = _search(work, base, candidates, parts, alone)
        facts = None
    by_block = np.array(best.weights).reshape(blocks, len(candidates))
    return Found(
        tuple(map(float, by_block.mean(axis=0))),
        best.fit_loss,
        resolved,
        spent,
        parts=tuple(parts) if blocks > 1 else (),
        part_weights=best.weights if blocks > 1 else (),
        blocks=blocks,
        gradient=facts,
    )


def _search(
    work: Work,
    base: LoadedBase,
    candidates: list[LoraAdapter],
    parts: list[LoraAdapter],
    alone: Mapping[str, float],
) -> tuple[Evaluation, str, int]:
    """Search without gradients; return the best, the optimiser's own name, and what was spent."""
    request, n = work.request, len(candidates)
    blocks = len(parts) // n
    first, *others = _starts(request, [alone[item.name] for item in candidates])
    is_held = request.resolved_prior in ("mean", "softmax")
    with AdapterStack(base, parts, space=_space(request)) as stack:
        objective = _FitRows(stack, fit_scorer(work, base))
        settings = SearchSettings(
            optimizer=request.optimizer,
            budget=request.budget,
            seed=request.seed,
            weight_bound=request.weight_bound,
            l1_penalty=request.l1_penalty,
            start=first * blocks,
            more_starts=tuple(start * blocks for start in others),
            num_workers=request.num_workers,
            prior=first * blocks if is_held else None,
            prior_penalty=request.prior_penalty,
            prior_is_start=request.resolved_prior == "start",
            blocks=blocks,
            apart=max(LEAST_APART, len(work.split.fit) // APART_ROWS),
        )
        search = WeightSearch(
            objective,
            len(parts),
            settings,
            checkpoint=request.checkpoint,
            fingerprint=fingerprint_of(work, base, candidates),
            should_stop=work.should_stop,
        )
        work.phase(
            "searching",
            f"searching {len(parts)} weights with {request.optimizer}, "
            f"{request.budget} evaluations",
            request.budget,
        )
        _tell_uniform(work, objective, n, blocks)
        _run(work, search, n)
    best = _confirm(work, base, parts, search)
    return best, search.optimizer_resolved, len(search.history)


def _learn(
    work: Work, base: LoadedBase, candidates: list[LoraAdapter], parts: list[LoraAdapter]
) -> tuple[Evaluation, str, int, dict[str, Any]]:
    """Learn the weights with gradients; return also how, for the recipe."""
    request, n = work.request, len(candidates)
    blocks = len(parts) // n
    settings = GradientSettings(
        budget=request.budget,
        weight_bound=request.weight_bound,
        l1_penalty=request.l1_penalty,
        start=_starts(request, [0.0] * n)[0] * blocks,
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
    facts = {
        "steps": search.steps,
        "step_evaluations": STEP_EVALUATIONS,
        "learning_rate": settings.learning_rate,
    }
    best = _confirm(work, base, parts, search)
    return best, search.optimizer_resolved, search.spent, facts


class _FitRows:
    """The search's objective: the mean loss of the fit rows under stacked candidates."""

    def __init__(self, stack: AdapterStack, scorer: Scorer) -> None:
        self._stack = stack
        self._scorer = scorer

    def losses(self, weights: FloatArray) -> FloatArray:
        return finite_losses(np.asarray(self._scorer.losses(self._stack, weights).mean(axis=1)))

    def answer_logits(self, weights: FloatArray) -> AnswerLogits:
        return self._scorer.answer_logits(self._stack, weights)


def _space(request: ComposeRequest) -> Literal["factor", "delta"]:
    return "factor" if request.merge_method == "factor" else "delta"


def _starts(request: ComposeRequest, alone: Sequence[float]) -> list[tuple[float, ...]]:
    """Return where the search may start; `alone` are the candidates' losses, the best first.

    LoraHub starts at zero, and so does what is not screened, unless weights are held near a prior.
    """
    n = len(alone)
    best_alone = (1.0,) + (0.0,) * (n - 1)
    match request.resolved_prior:
        case "zero":
            return [best_alone if request.selection == "screened" else (0.0,) * n]
        case "mean":
            return [(1 / n,) * n]
        case "softmax":
            return [softmax_prior(alone)]
        case "start":
            means = [(1 / k,) * k + (0.0,) * (n - k) for k in MEANS_OF if k <= n]
            return list(dict.fromkeys([best_alone, *means, softmax_prior(alone)]))


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
    with (
        in_float32(base) as exact,
        AdapterStack(exact, candidates, space=_space(work.request)) as stack,
    ):
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
