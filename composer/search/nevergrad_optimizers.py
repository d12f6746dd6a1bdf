"""nevergrad's optimisers by name, driven one weight vector at a time."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import nevergrad as ng
import numpy as np

from composer.errors import SearchError
from composer.scoring import FloatArray
from composer.search.asking import Ask, Optimizer, SearchSettings

OWN_OPTIMIZERS = ("greedy", "greedy+gn")


def optimizer_names() -> tuple[str, ...]:
    """Return every name a search accepts."""
    return (*OWN_OPTIMIZERS, *sorted(ng.optimizers.registry))


def require_optimizer(name: str) -> None:
    """Refuse an unknown optimiser before anything is loaded."""
    if name not in OWN_OPTIMIZERS and name not in ng.optimizers.registry:
        message = (
            f"There is no optimiser called {name!r}. "
            "Choose greedy+gn, greedy, NGOpt, CMA, DE, PSO, OnePlusOne or another of nevergrad's."
        )
        raise SearchError(message)


def drive_nevergrad(
    start: FloatArray, settings: SearchSettings, on_choice: Callable[[str], None]
) -> Optimizer:
    """Ask and tell one of nevergrad's optimisers; `on_choice` hears what NGOpt resolved to."""
    optimizer = _nevergrad_optimizer(start, settings)
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            candidate = optimizer.ask()
        # Only now does NGOpt know what it chose.
        on_choice(_resolved_name(optimizer, settings.optimizer))
        told = yield Ask(np.asarray(candidate.value, dtype=np.float64)[None])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer.tell(candidate, float(told.losses[0]))


def _nevergrad_optimizer(start: FloatArray, settings: SearchSettings) -> Any:
    require_optimizer(settings.optimizer)
    parametrization = ng.p.Array(init=start)
    parametrization.set_bounds(-settings.weight_bound, settings.weight_bound)
    parametrization.random_state.seed(settings.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ng.optimizers.registry[settings.optimizer](
            parametrization=parametrization, budget=settings.budget, num_workers=1
        )


def _resolved_name(optimizer: Any, asked: str) -> str:
    inner = optimizer
    while getattr(inner, "_optim", None) is not None:
        inner = inner._optim
    return str(inner.name or asked)
