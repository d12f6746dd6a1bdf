"""Which adapters a list of models holds: filters, order, and the place where a page ended.

A filter is a tag as `documents` derives it; here each becomes a condition on indexed columns, so
that a page costs the same in a large catalogue. Pages go on from the last row, not by counting.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Q
from django.http import HttpRequest, QueryDict

from marketplace.accounts.models import User
from marketplace.catalogue.languages import find_language
from marketplace.catalogue.licences import LicenceError, normalise_licence
from marketplace.catalogue.models import Adapter, BaseModel, Tag
from marketplace.catalogue.querysets import AdapterQuerySet
from marketplace.hub.addresses import is_storable
from marketplace.hub.documents import FORMAT_TAGS, LIBRARY, TEXT_GENERATION, TEXT_TO_TEXT
from marketplace.hub.errors import BadRequest
from marketplace.hub.parameters import is_true, read_list

PAGE = 100
MAX_PAGE = 1000
MAX_FILTERS = 20
MAX_WORDS = 200
SORTS = {
    "downloads": "downloads",
    "trendingScore": "trending",
    "trending_score": "trending",
    "likes": "likes",
    "lastModified": "updated_at",
    "last_modified": "updated_at",
    "createdAt": "created_at",
    "created_at": "created_at",
}
_TYPES: dict[str, Callable[[Any], Any]] = {
    "updated_at": datetime.fromisoformat,
    "created_at": datetime.fromisoformat,
    "trending": float,
}
_PURPOSES = {TEXT_GENERATION: False, TEXT_TO_TEXT: True}


@dataclass(frozen=True)
class Page:
    """How many rows, in which order, after which row."""

    column: str
    size: int
    after: tuple[Any, int] | None

    def cut(self, rows: AdapterQuerySet) -> list[Adapter]:
        """Return the rows of this page and one more, which tells that there is another page."""
        found: list[Adapter] = []
        for part in self._parts(rows.order_by(f"-{self.column}", "-pk")):
            found += part[: self.size + 1 - len(found)]
        return found

    def _parts(self, rows: AdapterQuerySet) -> Iterable[AdapterQuerySet]:
        """First the equals of the row, then what comes after them; each begins in the index."""
        if self.after is None:
            return [rows]
        value, pk = self.after
        equals = rows.filter(**{self.column: value, "pk__lt": pk})
        return [equals, rows.filter(**{f"{self.column}__lt": value})]

    def cursor_after(self, adapter: Adapter) -> str:
        """Name the place after this row."""
        value = getattr(adapter, self.column)
        value = value.isoformat() if isinstance(value, datetime) else value
        return base64.urlsafe_b64encode(json.dumps([value, adapter.pk]).encode()).decode()


def read_page(request: HttpRequest) -> Page:
    """Read sort, limit and cursor.

    Raises:
        BadRequest: one of them is not ours.
    """
    sort = request.GET.get("sort") or "downloads"
    if sort not in SORTS:
        raise BadRequest(f"{sort[:40]!r} is no order of models. Use one of: {', '.join(SORTS)}.")
    column = SORTS[sort]
    limit = request.GET.get("limit") or str(PAGE)
    if not (limit.isascii() and limit.isdigit() and int(limit[:9]) > 0):
        raise BadRequest("The limit is a whole number from 1.")
    cursor = request.GET.get("cursor", "")
    return Page(column, min(int(limit[:9]), MAX_PAGE), _read_cursor(cursor, column))


def filter_models(rows: AdapterQuerySet, parameters: QueryDict) -> AdapterQuerySet:
    """Keep what the parameters ask for; those we do not know are ignored, as clients expect."""
    tags = read_list(parameters, "filter") + read_list(parameters, "pipeline_tag")
    if len(tags) > MAX_FILTERS:
        raise BadRequest(f"At most {MAX_FILTERS} filters at once; these are {len(tags)}.")
    for tag in dict.fromkeys(tags):
        rows = rows.filter(_condition(tag))
    for word in _read_text(parameters, "search").split():
        rows = rows.filter(full_name__icontains=word)
    author = _read_text(parameters, "author")
    if author:
        # Looked up first: the planner then knows how few rows there are.
        rows = rows.filter(owner_id=_find_user(author))
    gated = parameters.get("gated", "").lower()
    if gated in {Adapter.Gate.AUTO, Adapter.Gate.MANUAL}:
        rows = rows.filter(gated=gated)
    elif gated:
        open_to_all = Q(gated=Adapter.Gate.OPEN)
        rows = rows.filter(~open_to_all if is_true(parameters, "gated") else open_to_all)
    return rows


def _condition(tag: str) -> Q:
    kind, _, value = tag.partition(":")
    if tag in FORMAT_TAGS or (kind, value) == ("library", LIBRARY):
        return Q(latest__isnull=False)
    if kind == "base_model" and value:
        return Q(base_model__in=_find_bases(value.removeprefix("adapter:")))
    if kind == "license" and value:
        return Q(licence=_find_licence(value))
    if tag in _PURPOSES:
        return Q(base_model__in=_list(BaseModel.objects.filter(is_seq2seq=_PURPOSES[tag])))
    if find_language(tag) == tag:
        return Q(language=tag)
    found = list(Tag.objects.filter(name=tag).values_list("pk", flat=True))
    return Q(pk__in=Adapter.tags.through.objects.filter(tag_id__in=found).values("adapter_id"))


def _find_bases(name: str) -> list[int]:
    """Return the base models of this name; a filter that names none finds nothing."""
    return _list(BaseModel.objects.filter(Q(name=name) | Q(aliases__contains=[name])))


def _list(bases: Any) -> list[int]:
    return list(bases.values_list("pk", flat=True))


def _find_licence(name: str) -> str:
    try:
        return normalise_licence(name)
    except LicenceError:
        return name


def _find_user(name: str) -> int | None:
    return User.objects.filter(username__iexact=name).values_list("pk", flat=True).first()


def _read_text(parameters: QueryDict, name: str) -> str:
    text = parameters.get(name, "")[:MAX_WORDS]
    return text if is_storable(text) else "\ufffd"


def _read_cursor(cursor: str, column: str) -> tuple[Any, int] | None:
    if not cursor:
        return None
    try:
        value, pk = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        return _TYPES.get(column, int)(value), int(pk)
    except (ValueError, TypeError, binascii.Error):
        raise BadRequest("This cursor is none of ours. Begin again without it.") from None
