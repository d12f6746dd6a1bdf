"""What a visitor asks the catalogue for, read from an address and written back into one.

Whatever an address holds is cut to something answerable: unknown parameters and sorts are ignored,
numbers are clamped. The state of the page is its address, so that it can be sent to somebody.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode

from django.http import QueryDict

MAX_WORDS = 200
MAX_EXAMPLES = 4000
MAX_VALUES = 20
MAX_RANK = 1024
MAX_PAGE = 1_000_000

# The names of the filters in an address and the column that each compares.
FILTERS = {
    "base": "base_model__name",
    "kind": "kind",
    "task": "task",
    "licence": "licence",
    "tag": "tags__name",
    "targets": "targets_key",
    "language": "language",
    "owner": "owner__username",
}
SORTS = {
    "used": "Most used",
    "trending": "Trending",
    "gain": "Best gain",
    "newest": "Newest",
    "liked": "Most liked",
}
_CURSOR = re.compile(r"[A-Za-z0-9_-]{1,200}\Z")
FACTOR = "factor"
BEST = "best"  # only where words or examples were given
BEST_LABEL = "Best match"


@dataclass(frozen=True)
class Fit:
    """What an adapter must share with another one, so that the two can be composed."""

    pk: int
    base_model_id: int | None
    peft_task: str
    shape_key: str


@dataclass(frozen=True)
class CatalogueQuery:
    """One state of the catalogue page."""

    words: str = ""
    examples: str = ""  # rows as pasted; searched for where `mode` says so
    mode: str = "words"
    filters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rank_min: int | None = None
    rank_max: int | None = None
    fits: str = ""  # owner/name of the adapter that those found can be composed with
    by: str = ""  # "factor": by the merge method that asks for the same shape
    fit: Fit | None = None  # what `fits` names, where the visitor may know of it
    sort: str = "used"
    page: int = 1  # of old addresses; pages lead to each other by `cursor`
    cursor: str = ""

    @property
    def text(self) -> str:
        """What is searched for, in the mode chosen."""
        return self.examples if self.mode == "examples" else self.words

    @property
    def is_narrowed(self) -> bool:
        """Whether anything at all is asked for."""
        ranks = (self.rank_min, self.rank_max)
        return bool(self.text or self.filters or self.fits) or any(
            rank is not None for rank in ranks
        )

    def sort_choices(self) -> dict[str, str]:
        """Return the sorts that make sense here, the default first."""
        return {BEST: BEST_LABEL, **SORTS} if self.text else SORTS

    def chosen(self, name: str) -> tuple[str, ...]:
        """Return the values chosen of one filter."""
        return self.filters.get(name, ())

    def without(self, name: str, value: str | None = None) -> CatalogueQuery:
        """Return the query with one filter, or one value of it, taken away; on page 1."""
        first = replace(self, page=1, cursor="")
        if name == "rank":
            return replace(first, rank_min=None, rank_max=None)
        if name == "fits":
            return replace(first, fits="", by="", fit=None)
        if name == "q":
            return replace(first, words="", examples="", mode="words")
        left = tuple(item for item in self.chosen(name) if value is not None and item != value)
        filters = {key: values for key, values in self.filters.items() if key != name}
        return replace(first, filters=filters | ({name: left} if left else {}))

    def encode(self, **changes: Any) -> str:
        """Return the query as the part of an address after the question mark."""
        query = replace(self, **changes) if changes else self
        pairs: list[tuple[str, str]] = []
        if query.mode == "examples":
            pairs += [("mode", "examples"), ("rows", query.examples)]
        elif query.words:
            pairs.append(("q", query.words))
        for name in FILTERS:
            pairs += [(name, value) for value in query.chosen(name)]
        for name, rank in (("rank_min", query.rank_min), ("rank_max", query.rank_max)):
            if rank is not None:
                pairs.append((name, str(rank)))
        pairs += [(name, text) for name in ("fits", "by") if (text := getattr(query, name))]
        choices = query.sort_choices()
        if query.sort in choices and query.sort != next(iter(choices)):
            pairs.append(("sort", query.sort))
        return urlencode([*pairs, *query._encode_place()])

    def _encode_place(self) -> list[tuple[str, str]]:
        if self.cursor:
            return [("cursor", self.cursor)]
        return [("page", str(self.page))] if self.page > 1 else []


def read_query(data: QueryDict) -> CatalogueQuery:
    """Read the parameters of an address; anything it should not hold is left out."""
    filters = {name: _read_values(data, name) for name in FILTERS}
    query = CatalogueQuery(
        words=_clean(data.get("q", ""))[:MAX_WORDS],
        examples=_clean(data.get("rows", ""), keep_lines=True)[:MAX_EXAMPLES],
        mode="examples" if data.get("mode") == "examples" else "words",
        filters={name: values for name, values in filters.items() if values},
        fits=(fits := _clean(data.get("fits", ""))[:MAX_WORDS]),
        by=FACTOR if fits and data.get("by") == FACTOR else "",
        rank_min=_read_number(data.get("rank_min"), MAX_RANK),
        rank_max=_read_number(data.get("rank_max"), MAX_RANK),
        page=_read_number(data.get("page"), MAX_PAGE) or 1,
        cursor=cursor if _CURSOR.match(cursor := data.get("cursor", "")) else "",
    )
    choices = query.sort_choices()
    sort = data.get("sort", "")
    return replace(query, sort=sort if sort in choices else next(iter(choices)))


def _read_values(data: QueryDict, name: str) -> tuple[str, ...]:
    values = (_clean(value)[:MAX_WORDS] for value in data.getlist(name)[:MAX_VALUES])
    return tuple(dict.fromkeys(value for value in values if value))


def _clean(text: str, *, keep_lines: bool = False) -> str:
    """Drop what PostgreSQL cannot hold, and surrounding space."""
    kept = "".join(
        sign
        for sign in text
        if sign.isprintable() or sign == " " or (keep_lines and sign in "\n\t")
    )
    return kept.strip()


def _read_number(text: str | None, highest: int) -> int | None:
    """Read a number from 1 up; one that is too large is clamped, anything else is no number."""
    if text is None or not text.strip().isascii() or not text.strip().isdigit():
        return None
    digits = text.strip()[:12]
    return min(max(int(digits), 1), highest)
