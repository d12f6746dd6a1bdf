"""Refuse what cannot work, as early as it can be known and with everything that is wrong at once.

`check_request` needs nothing but the request; `check_pool` and `check_rows` need the base. What is
wrong inside an adapter's files is said by `composer.inspection`, inside a file of rows by
`composer.examples`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from composer.adapter import WEIGHTS_NAME, LoraAdapter
from composer.base_model import LoadedBase
from composer.composing.request import CHOOSING, ComposeRequest
from composer.errors import (
    IncompatibleAdapters,
    InvalidAdapter,
    InvalidExamples,
    Problem,
    SearchError,
)
from composer.examples import Example, ExampleSplit
from composer.gradient import GRADIENT
from composer.scoring import encode_examples
from composer.search import require_optimizer
from composer.writing import require_free

MAX_SEED = 2**32 - 1  # what numpy and nevergrad take
MAX_PROBLEMS = 20


def check_request(request: ComposeRequest) -> None:
    """Refuse what cannot work before anything is loaded.

    Raises:
        IncompatibleAdapters: there is no adapter, or the merge method does not allow the wish.
        SearchError: with every number that is out of its range.
        InvalidExamples: with every row that is empty.
    """
    if not request.pool:
        raise IncompatibleAdapters("There is no adapter to compose. Choose at least one.")
    wrong = list(_wrong_numbers(request)) + list(_wrong_hand_weights(request))
    if wrong:
        raise SearchError("\n".join(wrong))
    _check_optimizer(request)
    _check_similarity(request)
    _check_folds(request)
    if request.quick_lora and request.merge_method == "factor":
        message = "A quick LoRA is added to an exact sum. Choose concat or svd, or leave it out."
        raise IncompatibleAdapters(message)
    empty = [
        *_empty_rows(request.examples, "row"),
        *_empty_rows(request.held_out or (), "held-out row"),
    ]
    if not request.examples:
        fix = "Give at least one input and output."
        empty.insert(0, Problem("examples", "", "There are no examples.", fix))
    if empty:
        raise InvalidExamples(empty[:MAX_PROBLEMS])
    require_free(request.output_folder)


def check_pool(base: LoadedBase, pool: Sequence[LoraAdapter]) -> None:
    """Refuse adapters that were made for another base model.

    Raises:
        InvalidAdapter: with the first module of each adapter that the base has not, or has in
            another size.
    """
    problems = [problem for adapter in pool for problem in _misfits(base, adapter)]
    if problems:
        raise InvalidAdapter(problems[:MAX_PROBLEMS])


def check_rows(base: LoadedBase, split: ExampleSplit, request: ComposeRequest) -> None:
    """Refuse rows that the model cannot read, those to judge on too, before the search begins.

    Raises:
        InvalidExamples: naming every row that is too long.
    """
    encode_examples(base, [*split.fit, *split.held_out], request.prompt_format)


def _wrong_numbers(request: ComposeRequest) -> Iterator[str]:
    counts = {
        "The budget": (request.budget, "evaluation"),
        "The number of candidates": (request.n_candidates, "candidate"),
        "The length of an answer": (request.max_new_tokens, "token"),
        "The number of fit rows": (request.n_fit, "row"),
        "The rank of the SVD": (request.svd_rank, ""),
        "The number of workers": (request.num_workers, ""),
        "The number of weight blocks": (request.weight_blocks, ""),
    }
    for name, (count, unit) in counts.items():
        if count is not None and count < 1:
            yield f"{name} must be at least {f'1 {unit}'.strip()}, not {count}."
    if not 0 <= request.seed <= MAX_SEED:
        yield f"The seed must lie between 0 and {MAX_SEED}, not {request.seed}."
    if not 0 < request.weight_bound < math.inf:
        yield f"The bound of the weights must be above 0, not {request.weight_bound:g}."
    if not 0 <= request.l1_penalty < math.inf:
        yield f"The penalty on the weights must be 0 or more, not {request.l1_penalty:g}."
    if not 0 <= request.prior_penalty < math.inf:
        yield f"The penalty beside the prior must be 0 or more, not {request.prior_penalty:g}."


def _check_similarity(request: ComposeRequest) -> None:
    """Refuse a way to compare texts that is unknown or lacks its model.

    Raises:
        SearchError: naming it.
    """
    if request.similarity not in {"tfidf", "embedding"}:
        message = f"Texts are compared by tfidf or embedding, not by {request.similarity}."
        raise SearchError(message)
    if request.similarity == "embedding" and not request.embedding_model:
        message = "Name the embedding model: a folder, or a name for sentence-transformers."
        raise SearchError(message)


def _check_optimizer(request: ComposeRequest) -> None:
    """Refuse an unknown optimiser, and what it cannot do.

    Raises:
        SearchError: naming the optimiser.
        IncompatibleAdapters: gradients were asked for with LoraHub's formula.
    """
    if request.optimizer != GRADIENT:
        require_optimizer(request.optimizer)
    elif request.prior not in ("auto", "zero"):
        message = f"{GRADIENT} begins at the best adapter and takes no prior. Leave it out."
        raise SearchError(message)
    elif request.merge_method == "factor":
        message = f"{GRADIENT} learns the weights of an exact sum. Choose concat or svd."
        raise IncompatibleAdapters(message)
    if request.prior == "start" and request.optimizer not in CHOOSING:
        message = f"Only {' and '.join(CHOOSING)} choose a start. Choose one, or another prior."
        raise SearchError(message)
    if request.weight_blocks not in {None, 1}:
        _check_blocks(request)


def _check_blocks(request: ComposeRequest) -> None:
    """Weights by blocks of layers are searched by some, and only where sums are exact.

    Raises:
        SearchError: naming the optimiser, or the weights set by hand.
        IncompatibleAdapters: they were asked for with LoraHub's formula.
    """
    if request.optimizer not in {GRADIENT, *CHOOSING}:
        names = f"{', '.join(CHOOSING)} and {GRADIENT}"
        message = f"Weights by blocks of layers are found by {names} only."
        raise SearchError(message)
    if request.merge_method == "factor":
        message = "Weights by blocks of layers are those of an exact sum. Choose concat or svd."
        raise IncompatibleAdapters(message)
    if request.hand_weights is not None:
        message = "Weights set by hand are one an adapter. Leave out the weight blocks."
        raise SearchError(message)


def _check_folds(request: ComposeRequest) -> None:
    """Cross-validation repeats a search, so there must be one, without gradients.

    Raises:
        SearchError: saying why there cannot be folds.
    """
    if not request.folds:
        return
    if request.folds < 2:  # noqa: PLR2004 - with one fold nothing is left to search on
        raise SearchError(f"Cross-validation needs at least 2 folds, not {request.folds}.")
    if request.hand_weights is not None:
        raise SearchError("Weights set by hand are not searched, so there is nothing to validate.")
    if request.quick_lora:
        message = "A quick LoRA would be trained in every fold. Leave out the folds or the LoRA."
        raise SearchError(message)


def _wrong_hand_weights(request: ComposeRequest) -> Iterator[str]:
    weights = request.hand_weights
    if weights is None:
        return
    strangers = set(weights) - {member.name for member in request.pool}
    if strangers:
        yield f"Weights were given for {', '.join(sorted(strangers))}, which is not in the pool."
    for name, weight in weights.items():
        if not math.isfinite(weight):
            yield f"The weight of {name} is {weight}, which is no finite number."
    if not any(weights.values()):
        yield "All weights set by hand are zero, so there is nothing to compose. Set one."


def _empty_rows(rows: Sequence[Example], noun: str) -> list[Problem]:
    return [
        Problem(
            "examples", f"{noun} {number}", f"has an empty {name}.", "Fill it in or leave it out."
        )
        for number, row in enumerate(rows, start=1)
        for name, text in (("input", row.input), ("output", row.output))
        if not text.strip()
    ]


def _misfits(base: LoadedBase, adapter: LoraAdapter) -> Iterator[Problem]:
    fix = "Choose adapters that were made for this base."
    for path, layer in adapter.layers.items():
        theirs = (int(layer.a.shape[1]), int(layer.b.shape[0]))
        ours = base.module_table.get(path)
        if ours is None:
            message = f"changes {path}, which {base.source.title} has not."
        elif ours != theirs:
            message = (
                f"changes {path} with {theirs[0]} to {theirs[1]} features; "
                f"in {base.source.title} it has {ours[0]} to {ours[1]}."
            )
        else:
            continue
        yield Problem(adapter.name, WEIGHTS_NAME, message, fix)
        return
