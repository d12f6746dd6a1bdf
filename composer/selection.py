"""From a pool of adapters to the candidates of one search.

`random` is LoraHub's own way; `similar` reads texts only (cards and samples against the user's
rows); `screened` scores every pool member alone and keeps the best, after `similar` has made a
large pool small. Loading adapters and the search over their weights are left to others.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from composer.adapter import LoraAdapter
from composer.base_model import LoadedBase
from composer.errors import SearchError
from composer.examples import Example
from composer.inspection import AdapterSummary
from composer.scoring import Scorer
from composer.stacking import AdapterStack

Selection = Literal["screened", "all", "random", "similar"]

# By merit, that is not all or at random: these read texts, and copies would take others' places.
BY_MERIT: frozenset[Selection] = frozenset({"similar", "screened"})
# What similarity leaves of a large pool for screening: similar 40 -> screened -> N.
SCREENED_POOL = 40
# Ranks stacked at once while screening: every vector pays for all ranks of its stack.
STACKED_RANKS = 128


Similarities = np.ndarray[tuple[int], np.dtype[np.float64]]


@dataclass(frozen=True)
class PoolMember:
    """An adapter that may become a candidate, with what is known about it beyond its weights."""

    name: str
    folder: Path
    revision: str = ""
    card_text: str = field(default="", repr=False)
    samples: tuple[Example, ...] = field(default=(), repr=False)
    # What inspection said, where the caller has inspected these very files already.
    summary: AdapterSummary | None = field(default=None, repr=False)


# How alike each member's texts and the user's rows are.
Ranking = Callable[[Sequence[PoolMember], Sequence[Example]], Similarities]


def preselect(
    pool: Sequence[PoolMember],
    examples: Sequence[Example],
    selection: Selection,
    *,
    n_candidates: int,
    seed: int,
    ranking: Ranking | None = None,
) -> list[PoolMember]:
    """Return the members worth loading, in the pool's order; texts only, no weights are read.

    A `ranking` other than `similarities` is an embedding model's, if there is one.
    """
    if selection == "random":
        count = min(n_candidates, len(pool))
        chosen = set(random.Random(seed).sample(range(len(pool)), count))  # noqa: S311 - seeded
        return [member for i, member in enumerate(pool) if i in chosen]
    if selection in BY_MERIT:
        pool = without_copies(pool)
    limit = {"similar": n_candidates, "screened": max(SCREENED_POOL, n_candidates)}
    wanted = limit.get(selection, len(pool))
    if len(pool) <= wanted:
        return list(pool)
    alike = (ranking or similarities)(pool, examples)
    best = np.argsort(-alike, kind="stable")[:wanted]
    return [pool[i] for i in sorted(best)]


def without_copies(pool: Sequence[PoolMember]) -> list[PoolMember]:
    """Leave out what is an earlier member once more: the same weights, scaled the same way.

    Shelves hold many copies of a good adapter; N copies of the best one would leave the search
    nothing to mix it with. A member without a summary is kept.
    """
    seen: set[str] = set()
    kept = []
    for member in pool:
        summary = member.summary
        if summary is not None and summary.weights_sha256:
            scale = (summary.alpha, summary.use_rslora, summary.alpha_pattern, summary.rank_pattern)
            key = f"{summary.weights_sha256} {scale}"
            if key in seen:
                continue
            seen.add(key)
        kept.append(member)
    return kept


def similarities(pool: Sequence[PoolMember], examples: Sequence[Example]) -> Similarities:
    """Return the cosine of each member's texts with the user's rows, 0 to 1: TF-IDF of characters.

    Character n-grams inside words need no language and forgive inflection.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415 - slow to import

    wanted = wanted_text(examples)
    texts = [text_of(member) for member in pool]
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)
    matrix = vectors.fit_transform([wanted, *texts])
    return np.asarray((matrix[1:] @ matrix[0].T).todense()).ravel()


def score_alone(
    base: LoadedBase,
    adapters: Sequence[LoraAdapter],
    scorer: Scorer,
    *,
    on_scored: Callable[[str, float, int], None] = lambda name, loss, done: None,
) -> dict[str, float]:
    """Return the mean loss of every adapter alone at weight 1, by name.

    Adapters are stacked in groups, so that a batch of rows meets several of them in one pass.
    """
    losses: dict[str, float] = {}
    for group in _groups(adapters):
        with AdapterStack(base, group) as stack:
            rows = scorer.losses(stack, np.eye(len(group)))  # (adapters, rows)
        for adapter, loss in zip(group, rows.mean(axis=1), strict=True):
            losses[adapter.name] = float(loss)
            on_scored(adapter.name, float(loss), len(losses))
    return losses


def keep_best(
    adapters: Sequence[LoraAdapter], losses: Mapping[str, float], n_candidates: int
) -> list[LoraAdapter]:
    """Return the `n_candidates` adapters with the lowest finite losses, the best first.

    Raises:
        SearchError: not one of them has a loss that is a number.
    """
    usable = [adapter for adapter in adapters if np.isfinite(losses[adapter.name])]
    if not usable:
        message = (
            "No adapter gave a loss that is a number on these rows. "
            "Check that the adapters belong to this base model, and that the base itself is whole."
        )
        raise SearchError(message)
    return sorted(usable, key=lambda adapter: losses[adapter.name])[:n_candidates]


def _groups(adapters: Sequence[LoraAdapter]) -> Iterator[list[LoraAdapter]]:
    group: list[LoraAdapter] = []
    ranks = 0
    for adapter in adapters:
        rank = max((layer.rank for layer in adapter.layers.values()), default=0)
        if group and ranks + rank > STACKED_RANKS:
            yield group
            group, ranks = [], 0
        group.append(adapter)
        ranks += rank
    if group:
        yield group


def wanted_text(examples: Sequence[Example]) -> str:
    """Return what the user's rows say."""
    return "\n".join(f"{row.input} {row.output}" for row in examples)


def text_of(member: PoolMember) -> str:
    """Return what an adapter says of itself: its name, its card and its samples."""
    samples = "\n".join(f"{row.input} {row.output}" for row in member.samples)
    return f"{member.name.rpartition('/')[2].replace('_', ' ')}\n{member.card_text}\n{samples}"
