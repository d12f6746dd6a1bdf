"""The one entry: each line of `compose` is a step of the method."""

from __future__ import annotations

from dataclasses import replace

from composer.composing.checking import check_request, check_rows
from composer.composing.finishing import (
    Outcome,
    judge_all,
    look_over,
    merge_found,
    write_result,
)
from composer.composing.folding import cross_validate
from composer.composing.preparing import (
    Work,
    inspect_pool,
    load_pool,
    load_warm,
    select_candidates,
    split_rows,
)
from composer.composing.request import ComposeRequest, Composition
from composer.composing.searching import find_weights
from composer.composing.training import add_quick_lora
from composer.progress import OnProgress, ShouldStop, ignore, never


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
    check_request(request)
    work = Work(request, split_rows(request), on_progress, should_stop)
    summaries = inspect_pool(request)
    base = load_warm(work)
    check_rows(base, work.split, request)
    pool = load_pool(work, base, summaries)
    candidates, alone = select_candidates(work, base, pool)
    found = find_weights(work, base, candidates, alone)
    quick = None
    if request.quick_lora:
        quick, found = add_quick_lora(work, base, candidates, found)
    parents = candidates if quick is None else [*candidates, quick.adapter]
    merged = merge_found(work, parents, found)
    folded = cross_validate(work, base, pool)
    report = judge_all(work, base, candidates, merged, quick, folded)
    report = replace(report, sanity=look_over(work, base, parents, found, merged))
    outcome = Outcome(candidates, summaries, alone, found, merged, report, quick, folded)
    return write_result(work, base, outcome)
