"""One page of the catalogue: rows, counts, chips, and what to do when nothing is found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.core.paginator import Page, Paginator

from marketplace.accounts.models import User
from marketplace.catalogue.models import Adapter
from marketplace.catalogue.querysets import AdapterQuerySet
from marketplace.catalogue.search.facets import Facet, count_facets, label_value
from marketplace.catalogue.search.matching import (
    filter_adapters,
    keep_ids,
    list_adapters,
    match_text,
    order_adapters,
)
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
    page: Page[Adapter]
    total: int
    facets: tuple[Facet, ...]
    chips: tuple[Chip, ...]
    remedy: tuple[Chip, int] | None  # the filter that removes most, and what is there without it


class CountedPaginator(Paginator):  # type: ignore[type-arg] # not generic at run time
    """A paginator that was told the count, which the facets know already."""

    def __init__(self, rows: Any, per_page: int, total: int) -> None:
        super().__init__(rows, per_page)
        self._total = total

    @cached_property
    def count(self) -> int:
        """The number of rows."""
        return self._total


def search(
    user: User | AnonymousUser, query: CatalogueQuery, *, page_size: int = PAGE_SIZE
) -> SearchResults:
    """Find what this user may see and asked for; a page beyond the last gives the last."""
    visible = Adapter.objects.visible_to(user)
    scores = match_text(visible, query)
    rows = visible if scores is None else keep_ids(visible, scores)
    total, facets = count_facets(rows, query)
    chips = list_chips(query)
    return SearchResults(
        query=query,
        page=_read_page(filter_adapters(rows, query), query, scores, total, page_size),
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
    if query.rank_min is not None or query.rank_max is not None:
        low, high = query.rank_min or 1, query.rank_max
        label = f"rank {low} to {high}" if high else f"rank {low} and more"
        chips.append(Chip("rank", label, query.without("rank")))
    return tuple(chips)


def _read_page(
    rows: AdapterQuerySet,
    query: CatalogueQuery,
    scores: dict[int, float] | None,
    total: int,
    page_size: int,
) -> Page[Adapter]:
    # Ids first: a page far down then skips over narrow rows instead of whole ones.
    ids: Any = order_adapters(rows, query.sort).values_list("pk", flat=True)
    if query.sort == BEST and scores is not None:
        found = rows.values_list("pk", flat=True)
        ids = sorted(found, key=lambda pk: (scores[pk], pk), reverse=True)
    page: Page[Any] = CountedPaginator(ids, page_size, total).get_page(query.page)
    page.object_list = _fetch_in_order(list(page.object_list))
    return page


def _fetch_in_order(ids: Sequence[int]) -> list[Adapter]:
    found = list_adapters().in_bulk(list(ids))
    return [found[pk] for pk in ids if pk in found]


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
