"""How many adapters of each kind there are: the rail of filters with its counts.

Each facet counts what the other filters leave, so that its own values stay comparable. Facets that
nothing is chosen of share one scan of the table (GROUPING SETS); only chosen ones need their own.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from django.core.cache import cache
from django.db import connection
from django.db.models import Count

from marketplace.accounts.models import User
from marketplace.catalogue.languages import LANGUAGES
from marketplace.catalogue.models import Adapter, BaseModel, Tag
from marketplace.catalogue.querysets import AdapterQuerySet
from marketplace.catalogue.search.matching import filter_adapters
from marketplace.catalogue.search.query import CatalogueQuery

logger = logging.getLogger(__name__)

MAX_VALUES = 40
SHOWN = 6
# Counting a large catalogue takes a tenth of a second; its counts may be this old.
CACHED_FROM = 5_000
CACHED_SECONDS = 60

COLUMNS = {
    "base": "base_model_id",
    "kind": "kind",
    "task": "task",
    "licence": "licence",
    "targets": "targets_key",
    "language": "language",
    "owner": "owner_id",
}
TITLES = {
    "base": "Base model",
    "kind": "Kind",
    "task": "Task",
    "tag": "Tag",
    "licence": "Licence",
    "targets": "Target modules",
    "language": "Language",
    "owner": "Owner",
}
FACETS = tuple(TITLES)


@dataclass(frozen=True)
class FacetCount:
    """One value of a facet, as the address writes it and as people read it."""

    value: str
    label: str
    count: int
    is_chosen: bool


@dataclass(frozen=True)
class Facet:
    """One facet with its counts, the largest first; chosen values are always there."""

    name: str
    title: str
    counts: tuple[FacetCount, ...]

    @property
    def first(self) -> tuple[FacetCount, ...]:
        """The values shown at once."""
        return self.counts[:SHOWN]

    @property
    def rest(self) -> tuple[FacetCount, ...]:
        """The values behind "more"."""
        return self.counts[SHOWN:]


_Counts = dict[str, dict[Any, int]]


def count_facets(rows: AdapterQuerySet, query: CatalogueQuery) -> tuple[int, tuple[Facet, ...]]:
    """Return how many of `rows` the filters leave, and the counts of every facet.

    `rows` are those that are visible and found by the text, before any filter.
    """
    total, counts = _count_columns(filter_adapters(rows, query), tuple(COLUMNS))
    counts["tag"] = _count_tags(filter_adapters(rows, query))
    for name in COLUMNS:
        if query.chosen(name):
            others = filter_adapters(rows, query, skip=name)
            counts[name] = _count_columns(others, (name,))[1][name]
    facets = tuple(_make_facet(name, counts[name], query.chosen(name)) for name in FACETS)
    return total, facets


def _count_columns(rows: AdapterQuerySet, names: Sequence[str]) -> tuple[int, _Counts]:
    columns = [COLUMNS[name] for name in names]
    inner, params = rows.order_by().values(*columns).query.sql_with_params()
    quoted = [connection.ops.quote_name(column) for column in columns]
    sets = ", ".join(f"({column})" for column in quoted)
    statement = (
        f"SELECT GROUPING({', '.join(quoted)}), {', '.join(quoted)}, count(*) "  # noqa: S608
        f"FROM ({inner}) AS matched GROUP BY GROUPING SETS ({sets}, ())"
    )
    table = _run_cached(statement, params)
    counts: _Counts = {name: {} for name in names}
    total = 0
    for marks, *values, count in table:
        grouped = _read_grouping(marks, len(names))
        if grouped is None:
            total = count
        elif values[grouped] not in (None, ""):
            counts[names[grouped]][values[grouped]] = count
    return total, counts


def _read_grouping(marks: int, width: int) -> int | None:
    """Return the column a row groups by: GROUPING() sets the bit of each column it does not."""
    for position in range(width):
        if not marks >> (width - 1 - position) & 1:
            return position
    return None


def _count_tags(rows: AdapterQuerySet) -> dict[Any, int]:
    links = Adapter.tags.through.objects.filter(adapter_id__in=rows.order_by().values("pk"))
    counted = links.values_list("tag_id").annotate(number=Count("*")).order_by("-number", "tag_id")  # type: ignore[misc] # the annotation on the line itself
    inner, params = counted[:MAX_VALUES].query.sql_with_params()
    return dict(_run_cached(inner, params))


def _run_cached(statement: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Run a count; a large one is kept for a minute. Without the cache it only takes longer."""
    digest = hashlib.sha256(f"{statement}|{params!r}".encode()).hexdigest()
    key = f"facets:{digest}"
    try:
        kept = cache.get(key)
    except (OSError, redis.RedisError):
        kept = None
    if kept is not None:
        return list(kept)
    with connection.cursor() as cursor:
        cursor.execute(statement, params)
        table: list[tuple[Any, ...]] = cursor.fetchall()
    if sum(row[-1] for row in table) > CACHED_FROM:
        try:
            cache.set(key, table, CACHED_SECONDS)
        except (OSError, redis.RedisError):
            logger.warning("The counts of the catalogue could not be cached", exc_info=True)
    return table


def _make_facet(name: str, counts: Mapping[Any, int], chosen: Iterable[str]) -> Facet:
    largest = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))[:MAX_VALUES]
    names = _read_names(name, [key for key, _ in largest])
    wanted = tuple(chosen)
    values = [(names.get(key, str(key)), count) for key, count in largest]
    listed = {value for value, _ in values}
    values += [(value, 0) for value in wanted if value not in listed]
    found = [
        FacetCount(value, label_value(name, value), count, is_chosen=value in wanted)
        for value, count in values
    ]
    return Facet(name, TITLES[name], tuple(sorted(found, key=lambda item: not item.is_chosen)))


def _read_names(name: str, keys: Sequence[Any]) -> dict[Any, str]:
    """Return the names of keys that are ids."""
    if name == "base":
        return dict(BaseModel.objects.filter(pk__in=keys).values_list("pk", "name"))
    if name == "owner":
        return dict(User.objects.filter(pk__in=keys).values_list("pk", "username"))
    if name == "tag":
        return dict(Tag.objects.filter(pk__in=keys).values_list("pk", "name"))
    return {}


def label_value(name: str, value: str) -> str:
    """Return the value as people read it."""
    if name == "base":
        return value.rpartition("/")[2]
    if name == "kind":
        return value.capitalize()
    return LANGUAGES.get(value, value) if name == "language" else value
