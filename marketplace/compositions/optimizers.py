"""The optimisers that the form offers, with what to say of each; the library knows more."""

from __future__ import annotations

DEFAULT_OPTIMIZER = "duel"
DEFAULT_BUDGET = 52
GRADIENT = "gradient"

OPTIMIZERS: dict[str, str] = {
    "duel": "duel of the best adapter and the best mean, then Gauss-Newton steps",
    "greedy+gn": "greedy, then Gauss-Newton steps",
    "gauss-newton": "Gauss-Newton steps, from the best of several means",
    "greedy": "greedy, one adapter at a time",
    "NGOpt": "NGOpt, nevergrad's choice (LoraHub)",
    "CMA": "CMA-ES",
    "DE": "differential evolution",
    "PSO": "particle swarm",
    "OnePlusOne": "(1+1) evolution",
    "Cobyla": "Cobyla",
    GRADIENT: "with gradients, by Adam",
}
