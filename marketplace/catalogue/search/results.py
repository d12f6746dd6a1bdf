"""One page of the catalogue: rows, counts, chips, and what to do when nothing is found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from django.contrib.auth.models import AnonymousUser

from marketplace.accounts.models import User
from marketplace.catalogue.models import Adapter
from marketplace.catalogue.querysets import AdapterQuerySet
from marketplace.catalogue.search.facets import Facet, count_facets, label_value
from marketplace.catalogue.search.matching import (
    filter_adapters,
    find_fit,
    keep_ids,
    match_text,
)
from marketplace.catalogue.search.pages import ListPage, read_best_page, read_page
from marketplace.catalogue.search.query import BEST, FILTERS, CatalogueQuery

PAGE_SIZE = 20


@dataclass(frozen=True)
class Chip:
    """One active filter, and the query without it."""

    name: str
    label: str
    without: CatalogueQuery

    @property
    def address(self) -> str:
        """Where removing it leads."""
        return f"?{self.without.encode()}"


@dataclass(frozen=True)
class SearchResults:
    """What the catalogue page shows."""

    query: CatalogueQuery
    page: ListPage
    total: int
    facets: tuple[Facet, ...]
    chips: tuple[Chip, ...]
    remedy: tuple[Chip, int] | None  # the filter that removes most, and what is there without it


def search(
    user: User | AnonymousUser, query: CatalogueQuery, *, page_size: int = PAGE_SIZE
) -> SearchResults:
    """Find what this user may see and asked for; a page beyond the last gives the last."""
    visible = Adapter.objects.visible_to(user)
    if query.fits:
        query = replace(query, fit=find_fit(visible, query.fits))
    scores = match_text(visible, query)
    rows = visible if scores is None else keep_ids(visible, scores)
    total, facets = count_facets(rows, query)
    chips = list_chips(query)
    kept = filter_adapters(rows, query)
    if scores is not None and query.sort == BEST:
        page = read_best_page(kept, query, scores, page_size)
    else:
        page = read_page(kept, query, total, page_size)
    return SearchResults(
        query=query,
        page=page,
        total=total,
        facets=facets,
        chips=chips,
        remedy=_find_remedy(visible, rows, chips) if not total else None,
    )


def list_chips(query: CatalogueQuery) -> tuple[Chip, ...]:
    """Return every active filter as a chip that removes it."""
    chips = []
    if query.text:
        label = "your examples" if query.mode == "examples" else f"“{query.words}”"
        chips.append(Chip("q", label, query.without("q")))
    for name in FILTERS:
        chips += [
            Chip(name, label_value(name, value), query.without(name, value))
            for value in query.chosen(name)
        ]
    if query.fits:
        how = " by factor" if query.by else ""
        chips.append(Chip("fits", f"composes with {query.fits}{how}", query.without("fits")))
    if query.rank_min is not None or query.rank_max is not None:
        low, high = query.rank_min or 1, query.rank_max
        label = f"rank {low} to {high}" if high else f"rank {low} and more"
        chips.append(Chip("rank", label, query.without("rank")))
    return tuple(chips)


def _find_remedy(
    visible: AdapterQuerySet, found: AdapterQuerySet, chips: Sequence[Chip]
) -> tuple[Chip, int] | None:
    """Name the filter whose removal brings back most, where removing one helps at all."""
    counted = [
        (chip, filter_adapters(visible if chip.name == "q" else found, chip.without).count())
        for chip in chips
    ]
    best = max(counted, key=lambda item: item[1], default=None)
    return best if best and best[1] else None
