"""The ask/tell search for the weights of the candidates, with checkpoint and resume.

A `WeightSearch` yields one `Evaluation` after the other; the caller shows them, stops, or goes on.
Optimisers are nevergrad's by name and our own, `duel`, `gauss-newton`, `greedy` and `greedy+gn`,
which ask for whole populations. How weights are scored is the caller's `Objective`.
"""

from __future__ import annotations

from composer.search.asking import Evaluation, Objective, SearchSettings
from composer.search.nevergrad_optimizers import (
    OWN_OPTIMIZERS,
    RunningOptimizer,
    optimizer_names,
    require_optimizer,
)
from composer.search.weights import WORST_LOSS, WeightSearch, finite_losses

__all__ = [
    "OWN_OPTIMIZERS",
    "WORST_LOSS",
    "Evaluation",
    "Objective",
    "RunningOptimizer",
    "SearchSettings",
    "WeightSearch",
    "finite_losses",
    "optimizer_names",
    "require_optimizer",
]
