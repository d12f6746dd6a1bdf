"""Places in a sorted list: where a page ended, so that the next one goes on from that row.

A page far down then costs what the first one costs, and rows that are added or counted meanwhile
move nobody's place. Addresses carry a place as one opaque word; what is none of ours is None.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from django.db.models import F, FloatField, Value
from django.db.models.functions import Coalesce

from marketplace.catalogue.models import NO_GAIN
from marketplace.catalogue.querysets import AdapterQuerySet

MAX_LENGTH = 200
_HIGHEST = 2**63 - 1

Place = tuple[int, Any]  # id, and the value that is sorted by


@dataclass(frozen=True)
class Order:
    """What a list is sorted by, the highest first; the higher id decides between equals."""

    column: F | Coalesce
    parse: Callable[[Any], Any]  # from what JSON holds

    def sort(self, rows: AdapterQuerySet, *, backwards: bool = False) -> AdapterQuerySet:
        """Put the rows into this order, or into its reverse; an index has either."""
        if backwards:
            return rows.order_by(self.column.asc(), "pk")
        return rows.order_by(self.column.desc(), "-pk")

    def read_from(self, rows: AdapterQuerySet, start: int, limit: int) -> list[Place]:
        """Return so many places, counted off from the top."""
        places: Any = self.sort(self._places(rows))
        return list(places[start : start + limit])

    def read_beyond(self, rows: AdapterQuerySet, cursor: Cursor, limit: int) -> list[Place]:
        """Return so many places after the cursor's or, backwards, before it, the nearest first.

        First its equals, then the others: two conditions that begin in the index where the place
        is, which one condition on both columns does not where thousands are equal.
        """
        side = "gt" if cursor.backwards else "lt"
        places = self._places(rows)
        equals = places.filter(value=cursor.value, **{f"pk__{side}": cursor.pk})
        others = places.filter(**{f"value__{side}": cursor.value})
        found: list[Place] = []
        for part in (equals, others):
            sorted_part: Any = self.sort(part, backwards=cursor.backwards)
            found += sorted_part[: limit - len(found)]
        return found

    def _places(self, rows: AdapterQuerySet) -> Any:
        return rows.annotate(value=self.column).values_list("pk", "value")


@dataclass(frozen=True)
class Cursor:
    """A place in a list sorted by `sort`: after a row or, backwards, before it.

    `start` is what the first row of the page (backwards: the row itself) is counted as. A list
    without an order of its own, the best matches, has no row here: its place is the count.
    """

    sort: str
    start: int
    value: Any = None
    pk: int = 0
    backwards: bool = False

    def encode(self) -> str:
        """Return the word that an address carries."""
        value = self.value.isoformat() if isinstance(self.value, datetime) else self.value
        parts = [self.sort, self.start, value, self.pk, int(self.backwards)]
        packed = json.dumps(parts, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(packed).decode().rstrip("=")

    @classmethod
    def read(cls, word: str, sort: str) -> Self | None:
        """Return the place that the word names in a list sorted so, or None."""
        if not word or len(word) > MAX_LENGTH:
            return None
        try:
            packed = base64.b64decode(word + "=" * (-len(word) % 4), altchars="-_", validate=True)
            named, start, value, pk, backwards = json.loads(packed)
            if named != sort:
                return None
            parsed = ORDERS[sort].parse(value) if sort in ORDERS else None
            return cls(sort, _number(start), parsed, _number(pk), _number(backwards) == 1)
        except (ValueError, TypeError, RecursionError):
            return None


def _number(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value <= _HIGHEST:
        raise ValueError(value)
    return value


def _measure(value: object) -> float:
    if not isinstance(value, float | int) or not math.isfinite(value):
        raise ValueError(value)
    return float(value)


def _moment(value: object) -> datetime:
    moment = datetime.fromisoformat(str(value))
    if moment.tzinfo is None:
        raise ValueError(value)
    return moment


ORDERS = {
    "used": Order(F("downloads"), _number),
    "gain": Order(Coalesce("gain", Value(NO_GAIN, FloatField())), _measure),
    "newest": Order(F("updated_at"), _moment),
    "liked": Order(F("likes"), _number),
    "trending": Order(F("trending"), _measure),
}
