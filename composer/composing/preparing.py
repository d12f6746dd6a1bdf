"""Before the search: split the rows, load the base and the pool, choose the candidates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from composer.adapter import LoraAdapter
from composer.base_model import Dtype, LoadedBase, load_base
from composer.compatibility import check_compatibility
from composer.composing.checking import check_pool
from composer.composing.embedding import embedding_similarity
from composer.composing.request import ComposeRequest
from composer.errors import IncompatibleAdapters, SearchError, Stopped
from composer.examples import ExampleSplit, split_examples
from composer.inspection import AdapterSummary, inspect_adapter
from composer.progress import (
    CandidateScored,
    LogLine,
    OnProgress,
    PhaseStarted,
    ReferenceScored,
    ShouldStop,
)
from composer.scoring import Scorer, encode_examples
from composer.search import finite_losses
from composer.selection import (
    BY_MERIT,
    PoolMember,
    Ranking,
    keep_best,
    preselect,
    score_alone,
    without_copies,
)


@dataclass(frozen=True)
class Work:
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


def split_rows(request: ComposeRequest) -> ExampleSplit:
    """Split fit and held-out rows, or take the caller's own held-out rows."""
    if request.held_out is None:
        return split_examples(request.examples, n_fit=request.n_fit)
    n_fit = len(request.examples)
    return ExampleSplit(
        fit=request.examples,
        held_out=request.held_out,
        fit_indices=tuple(range(n_fit)),
        held_out_indices=tuple(range(n_fit, n_fit + len(request.held_out))),
    )


def inspect_pool(request: ComposeRequest) -> dict[str, AdapterSummary]:
    """Read what every pool member is, and refuse a merge method that they do not allow."""
    summaries = {
        member.name: member.summary or inspect_adapter(member.folder, None)
        for member in request.pool
    }
    if len(summaries) < len(request.pool):
        raise IncompatibleAdapters("Two adapters of the pool have the same name. Rename one.")
    check_compatibility(summaries).require(request.merge_method)
    return summaries


def load_warm(work: Work, dtype: Dtype | None = None) -> LoadedBase:
    """Load the base, or take it from the cache that the caller keeps warm."""
    request = work.request
    chosen = dtype or request.dtype
    if dtype is None:
        work.phase("loading", f"loading {request.base.title}")
    if request.base_cache is not None:
        return request.base_cache.load(request.base, dtype=chosen, device=request.device)
    return load_base(request.base, dtype=chosen, device=request.device)


def load_pool(
    work: Work, base: LoadedBase, summaries: Mapping[str, AdapterSummary]
) -> list[LoraAdapter]:
    """Load the members that the selection lets through, or those with a weight set by hand."""
    request = work.request
    hand = request.hand_weights
    if hand is None:
        pool = [replace(member, summary=summaries[member.name]) for member in request.pool]
        members = preselect(
            pool,
            work.split.fit,
            request.selection,
            n_candidates=request.n_candidates,
            seed=request.seed,
            ranking=_ranking(request),
        )
        _tell_copies(work, pool)
    else:
        members = [member for member in request.pool if hand.get(member.name)]
    loaded = [
        LoraAdapter.load(
            member.folder,
            base.module_table,
            name=member.name,
            summary=summaries[member.name],
        )
        for member in members
    ]
    check_pool(base, loaded)
    return loaded


def _tell_copies(work: Work, pool: list[PoolMember]) -> None:
    """Name what the selection leaves out for being another member once more."""
    if work.request.selection not in BY_MERIT:
        return
    kept = {member.name for member in without_copies(pool)}
    copies = ", ".join(member.name for member in pool if member.name not in kept)
    if copies:
        work.on_progress(LogLine(f"left out, being copies of others: {copies}"))


def _ranking(request: ComposeRequest) -> Ranking | None:
    """Load the embedding model where it is asked for and the selection reads texts."""
    if request.similarity == "tfidf" or request.selection not in BY_MERIT:
        return None
    return embedding_similarity(request.embedding_model, request.device)


def fit_scorer(work: Work, base: LoadedBase) -> Scorer:
    """Make the scorer of the fit rows."""
    rows = encode_examples(base, work.split.fit, work.request.prompt_format)
    return Scorer(base, rows, should_stop=work.should_stop)


def select_candidates(
    work: Work, base: LoadedBase, pool: list[LoraAdapter]
) -> tuple[list[LoraAdapter], dict[str, float]]:
    """Score every loaded adapter alone; keep the best where the selection says so."""
    total = len(pool)
    work.phase("screening", f"scoring {total} adapters alone on {len(work.split.fit)} rows", total)

    def on_scored(name: str, loss: float, done: int) -> None:
        work.on_progress(CandidateScored(name, finite_losses(loss), done, total))

    alone = score_alone(base, pool, fit_scorer(work, base), on_scored=on_scored)
    screened = work.request.selection == "screened" and work.request.hand_weights is None
    candidates = keep_best(pool, alone, work.request.n_candidates if screened else total)
    _tell_dropped(work, pool, alone)
    best = candidates[0]
    work.on_progress(ReferenceScored("best_single", alone[best.name]))
    work.on_progress(LogLine(f"best alone: {best.name}, loss {alone[best.name]:.3f}"))
    return candidates, alone


def _tell_dropped(work: Work, pool: list[LoraAdapter], alone: Mapping[str, float]) -> None:
    """Name what was left out because its loss is no number; weights set by hand are never dropped.

    Raises:
        SearchError: if one of them has a weight set by hand.
    """
    dropped = ", ".join(item.name for item in pool if not np.isfinite(alone[item.name]))
    if dropped and work.request.hand_weights is not None:
        message = f"The loss with {dropped} alone is not a number. Leave it out."
        raise SearchError(message)
    if dropped:
        work.on_progress(LogLine(f"left out, since their loss is not a number: {dropped}"))
