"""One page of a list: its rows, what they are counted as, and the way to the pages beside it.

Lists with an order of their own go on from a row (`cursors`). The best matches are ranked outside
the database, so their pages are cut from the ranking, which ends at a stated depth.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from marketplace.catalogue.models import Adapter
from marketplace.catalogue.querysets import AdapterQuerySet
from marketplace.catalogue.search.cursors import ORDERS, Cursor, Order, Place
from marketplace.catalogue.search.matching import list_adapters
from marketplace.catalogue.search.query import BEST, CatalogueQuery

MAX_COUNTED = 10_000  # rows that `?page=` of an old address may skip
MAX_RANKED = 1_000  # best matches that are listed


@dataclass(frozen=True)
class ListPage:
    """Some rows of a list, and the cursors of the pages before and after, empty where none is."""

    object_list: Sequence[Adapter]
    start_index: int
    total: int
    previous: str = ""
    next: str = ""
    reachable: int = MAX_COUNTED  # rows that can be counted off by page numbers
    is_cut: bool = False  # whether the list ends here, though more was found

    def __iter__(self) -> Iterator[Adapter]:
        return iter(self.object_list)

    def __len__(self) -> int:
        return len(self.object_list)

    @property
    def end_index(self) -> int:
        """What the last row is counted as."""
        return self.start_index + len(self.object_list) - 1

    @property
    def count(self) -> int:
        """How many there are; a count from a minute ago is never less than what is shown."""
        return max(self.total, self.end_index) if self.object_list else self.total

    @property
    def has_other_pages(self) -> bool:
        """Whether there is anything else to leaf to."""
        return bool(self.previous or self.next)


def read_page(rows: AdapterQuerySet, query: CatalogueQuery, total: int, size: int) -> ListPage:
    """Return the page at the cursor, or else the one of this number, as deep as numbers lead."""
    order = ORDERS[query.sort]
    cursor = Cursor.read(query.cursor, query.sort)
    if cursor is not None:
        return _read_beyond(rows, order, cursor, total, size)
    start = _skip(query.page, min(total, MAX_COUNTED), size)
    found = order.read_from(rows, start, size + 1)
    return _make_page(
        found[:size], query.sort, start + 1, total, before=start > 0, after=len(found) > size
    )


def read_best_page(
    rows: AdapterQuerySet, query: CatalogueQuery, scores: Mapping[int, float], size: int
) -> ListPage:
    """Return a page of the best matches, the nearest first; the ranking ends at MAX_RANKED."""
    kept = rows.values_list("pk", flat=True)
    ranked = sorted(kept, key=lambda pk: (scores[pk], pk), reverse=True)
    listed = ranked[:MAX_RANKED]
    cursor = Cursor.read(query.cursor, BEST)
    start = _skip(query.page, len(listed), size)
    if cursor is not None:
        start = max(cursor.start - 1, 0)
    end = start + size
    return ListPage(
        _fetch_in_order(listed[start:end]),
        start + 1,
        len(ranked),
        previous=Cursor(BEST, max(start - size, 0) + 1).encode() if start else "",
        next=Cursor(BEST, end + 1).encode() if end < len(listed) else "",
        reachable=MAX_RANKED,
        is_cut=end >= len(listed) < len(ranked),
    )


def _read_beyond(
    rows: AdapterQuerySet, order: Order, cursor: Cursor, total: int, size: int
) -> ListPage:
    found = order.read_beyond(rows, cursor, size + 1)
    there_is_more = len(found) > size
    found = found[:size]
    if not cursor.backwards:
        return _make_page(found, cursor.sort, cursor.start, total, before=True, after=there_is_more)
    # Whatever came before it in the meantime: the first page begins at 1.
    start = max(cursor.start - len(found), 1) if there_is_more else 1
    return _make_page(found[::-1], cursor.sort, start, total, before=there_is_more, after=True)


def _make_page(
    places: Sequence[Place], sort: str, start: int, total: int, *, before: bool, after: bool
) -> ListPage:
    rows = _fetch_in_order([pk for pk, _ in places])
    if not places:
        return ListPage(rows, start, total)
    (first, first_value), (last, last_value) = places[0], places[-1]
    end = start + len(places)
    return ListPage(
        rows,
        start,
        total,
        previous=Cursor(sort, start, first_value, first, backwards=True).encode() if before else "",
        next=Cursor(sort, end, last_value, last).encode() if after else "",
    )


def _skip(page: int, reachable: int, size: int) -> int:
    """Return how many rows come before the page; beyond the last one, before the last one."""
    last = max(reachable - 1, 0) // size
    return min(page - 1, last) * size


def _fetch_in_order(ids: Sequence[int]) -> list[Adapter]:
    found = list_adapters().in_bulk(list(ids))
    return [found[pk] for pk in ids if pk in found]
