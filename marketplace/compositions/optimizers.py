"""The optimisers that the form offers, with what to say of each; the library knows more."""

from __future__ import annotations

DEFAULT_OPTIMIZER = "greedy+gn"
GRADIENT = "gradient"

OPTIMIZERS: dict[str, str] = {
    "greedy+gn": "greedy, then Gauss-Newton steps",
    "gauss-newton": "Gauss-Newton steps, from a mean of the best",
    "greedy": "greedy, one adapter at a time",
    "NGOpt": "NGOpt, nevergrad's choice (LoraHub)",
    "CMA": "CMA-ES",
    "DE": "differential evolution",
    "PSO": "particle swarm",
    "OnePlusOne": "(1+1) evolution",
    "Cobyla": "Cobyla",
    GRADIENT: "with gradients, by Adam",
}
