"""k-fold cross-validation of the method: every row is judged by a search that did not see it.

Where rows are few, the two or three that can be held out say little. Each fold screens and searches
anew on the other rows, so `folds` of them cost about `folds` times the evaluations: the caller asks
for it. The adapter that is written does not depend on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from composer.adapter import LoraAdapter
from composer.base_model import LoadedBase
from composer.composing.finishing import merge_found, methods_of
from composer.composing.preparing import Work, select_candidates
from composer.composing.searching import find_weights
from composer.examples import Example, ExampleSplit
from composer.judging import Judge, judge_methods
from composer.progress import AnswersScored, LogLine, ignore
from composer.report import CrossValidation, Method, MethodResult

T = TypeVar("T")


def cross_validate(
    work: Work, base: LoadedBase, pool: Sequence[LoraAdapter]
) -> CrossValidation | None:
    """Judge each row by candidates and weights that were found on the other folds.

    None unless the request asks for folds. Texts of all rows may have chosen which adapters were
    loaded at all (`similar`); their losses did not.
    """
    rows = (*work.split.fit, *work.split.held_out)
    folds = min(work.request.folds, len(rows))
    if folds < 2:  # noqa: PLR2004 - one fold would leave no rows to search on
        return None
    work.phase("validating", f"cross-validating in {folds} folds", len(rows))
    answers: dict[Method, list[str]] = {}
    losses: dict[Method, list[float]] = {}
    spent = done = 0
    for fold, (split, places) in enumerate(_splits(rows, folds), start=1):
        part = _without_words(work, split, fold)
        evaluations, results = _judge_fold(part, base, pool)
        spent, done = spent + evaluations, done + len(places)
        for method, result in results.items():
            _put(answers.setdefault(method, [""] * len(rows)), places, result.answers)
            _put(losses.setdefault(method, [0.0] * len(rows)), places, result.losses or ())
        work.on_progress(AnswersScored("composed", done, len(rows)))
    work.on_progress(LogLine(f"cross-validation took {spent} evaluations"))
    return CrossValidation(
        folds,
        spent,
        {m: MethodResult(tuple(texts), tuple(losses[m])) for m, texts in answers.items()},
    )


def _judge_fold(
    work: Work, base: LoadedBase, pool: Sequence[LoraAdapter]
) -> tuple[int, dict[Method, MethodResult]]:
    candidates, alone = select_candidates(work, base, list(pool))
    found = find_weights(work, base, candidates, alone)
    methods = methods_of(work, candidates, merge_found(work, candidates, found))
    judge = Judge(
        base,
        replace(work.split, fit=(), fit_indices=()),
        work.request.prompt_format,
        work.request.max_new_tokens,
        ignore,
        work.should_stop,
    )
    return len(alone) + found.n_evaluations, judge_methods(judge, methods)


def _splits(rows: Sequence[Example], folds: int) -> Iterator[tuple[ExampleSplit, list[int]]]:
    """Hold out every k-th row in turn: rows that come sorted are spread over the folds."""
    for fold in range(folds):
        held = list(range(fold, len(rows), folds))
        fit = [i for i in range(len(rows)) if i not in held]
        split = ExampleSplit(
            fit=tuple(rows[i] for i in fit),
            held_out=tuple(rows[i] for i in held),
            fit_indices=tuple(fit),
            held_out_indices=tuple(held),
        )
        yield split, held


def _without_words(work: Work, split: ExampleSplit, fold: int) -> Work:
    """Return the work of one fold: its own rows and checkpoint; its steps are not told."""
    path = work.request.checkpoint
    checkpoint = path and path.with_name(f"{path.name}.fold{fold}")
    request = replace(work.request, checkpoint=checkpoint)
    return replace(work, request=request, split=split, on_progress=ignore)


def _put(target: list[T], places: Sequence[int], values: Sequence[T]) -> None:
    for place, value in zip(places, values, strict=True):
        target[place] = value
