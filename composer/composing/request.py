"""What one composition is asked for and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from composer.base_model import BaseModelCache, BaseModelSource, Dtype
from composer.examples import Example
from composer.inspection import AdapterSummary
from composer.report import Report
from composer.selection import PoolMember, Selection

Similarity = Literal["tfidf", "embedding"]

# These choose where to start and stay near it, and can weigh blocks of layers each for itself.
CHOOSING = ("duel", "gauss-newton")

Prior = Literal["auto", "zero", "start", "mean", "softmax"]


@dataclass(frozen=True)
class ComposeRequest:
    """Everything one composition needs; the defaults are what our measurements say is best.

    `held_out` gives separate rows to judge on; without it `examples` are split, `n_fit` of them to
    fit (None: by their number). `hand_weights` skips the search: adapter name to weight.
    `quick_lora` trains a LoRA on the fit rows, with gradients, and lets it take part.
    `prior="zero"` starts at the best single adapter and holds the weights sparse, by LoraHub's
    `l1_penalty * mean_i |w_i|`. The other priors hold them near some p, by
    `prior_penalty * sum_i (w_i - p_i)^2`: `"start"` near where the search starts, the best of some
    means: of the best two, three and four, and the softmax mean (and, for gauss-newton, the best
    adapter alone); `"mean"` starts at p_i = 1/N, `"softmax"` at p_i proportional to
    exp(-loss_i / 0.5) of the candidates' losses alone. `"auto"` is start for duel and gauss-newton,
    zero for all others and for the factor merge, where a mean of N adapters is N times too weak.
    `weight_blocks` of 2 or more give each adapter a weight for each block of layers, which
    duel, gauss-newton and gradient can find; None is 2 for the first two and 1 for all others.
    With few rows duel and gauss-newton weigh only the adapters of the largest weights apart.
    `optimizer="gradient"` learns the weights with gradients. `num_workers` is how many candidates
    nevergrad is asked for at once.
    `similarity="embedding"` compares texts by the model in the folder `embedding_model`, or by
    that name where sentence-transformers is installed.
    `folds` of 2 or more add a cross-validated score of the search, for as many more searches.
    """

    base: BaseModelSource
    pool: tuple[PoolMember, ...]
    examples: tuple[Example, ...]
    output_folder: Path
    prompt_format: Literal["plain", "chat"] = "plain"
    merge_method: Literal["concat", "factor", "svd"] = "concat"
    selection: Selection = "screened"
    similarity: Similarity = "tfidf"
    embedding_model: str = ""
    n_candidates: int = 8
    optimizer: str = "duel"
    num_workers: int = 1
    weight_blocks: int | None = None
    budget: int = 52
    seed: int = 42
    n_fit: int | None = None
    held_out: tuple[Example, ...] | None = None
    weight_bound: float = 1.5
    l1_penalty: float = 0.05
    prior: Prior = "auto"
    prior_penalty: float = 0.05
    svd_rank: int | None = None
    hand_weights: Mapping[str, float] | None = None
    prompting: bool = False
    folds: int = 0
    quick_lora: bool = False
    dtype: Dtype = "auto"
    device: str = "auto"
    checkpoint: Path | None = None
    max_new_tokens: int = 64
    exact_case: bool = False
    metric: Literal["auto", "exact_match", "rougeL"] = "auto"
    base_cache: BaseModelCache | None = field(default=None, repr=False, compare=False)

    @property
    def resolved_blocks(self) -> int:
        """Return into how many blocks of layers the weights are cut; fewer if layers are fewer."""
        if self.weight_blocks is not None:
            return self.weight_blocks
        is_exact = self.merge_method != "factor" and self.hand_weights is None
        return 2 if self.optimizer in CHOOSING and is_exact else 1

    @property
    def resolved_prior(self) -> Literal["zero", "start", "mean", "softmax"]:
        """Return what the weights are held near: `prior`, or what "auto" comes to."""
        if self.prior != "auto":
            return self.prior
        if self.optimizer in CHOOSING and self.merge_method != "factor":
            return "start"
        return "zero"


@dataclass(frozen=True)
class Composition:
    """The result: a folder with one PEFT adapter, and all that is known about how it came about.

    `names` and `weights` list the candidates of the search, zero weights included.
    """

    folder: Path
    names: tuple[str, ...]
    weights: tuple[float, ...]
    merge_method: str
    optimizer_resolved: str
    evaluations_spent: int
    report: Report
    recipe: dict[str, Any]
    card: str
    svd_error: float | None
    summary: AdapterSummary
