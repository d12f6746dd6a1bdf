"""From a query to rows: text matches with their scores, filters, and the order of a page.

Every set starts from `visible_to`, so nothing hidden can be found, counted or sorted by. Words
match by meaning (stemmed, without accents) or by looks (word similarity, which forgives typing
mistakes); the two lists are fused by reciprocal rank.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.search import SearchQuery, SearchRank, TrigramWordSimilarity
from django.db import connection, transaction
from django.db.models import (
    BigIntegerField,
    BooleanField,
    Case,
    F,
    FloatField,
    Func,
    Q,
    Value,
    When,
)
from django.db.models.lookups import GreaterThanOrEqual

from marketplace.catalogue.models import Adapter, Sample
from marketplace.catalogue.querysets import AdapterQuerySet
from marketplace.catalogue.search.query import FILTERS, CatalogueQuery
from marketplace.catalogue.search.resemblance import rank_by_resemblance

CONFIG = "catalogue"
# Below pg_trgm's default of 0.6, which does not forgive "pixl anme".
SIMILAR_ENOUGH = 0.45
# Reciprocal rank fusion: 1 / (60 + place), added up over the lists that an adapter is in.
FUSION = 60
MAX_MATCHES = 20_000  # a word that finds more than this narrows nothing down
MAX_COMPARED = 1_000  # adapters whose samples are compared with given examples
MAX_ALIKE = 200

ORDERS: dict[str, Sequence[Any]] = {
    "used": ("-downloads", "-id"),
    "gain": (F("gain").desc(nulls_last=True), "-id"),
    "newest": ("-updated_at", "-id"),
    "liked": ("-likes", "-id"),
}


def match_text(visible: AdapterQuerySet, query: CatalogueQuery) -> dict[int, float] | None:
    """Return the score of each adapter that the text finds, or None where there is no text."""
    if not query.text:
        return None
    if query.mode == "examples":
        return match_examples(visible, query.examples)
    return match_words(visible, query.words)


def match_words(visible: AdapterQuerySet, words: str) -> dict[int, float]:
    """Find words in names, summaries, tags, samples and cards, with or without typing mistakes."""
    plain = _without_accents(words)
    wanted = SearchQuery(words, config=CONFIG, search_type="websearch")
    lexical = Q(search=wanted)
    similar = Q(search_text__trigram_word_similar=plain)
    rows = (
        visible.filter(lexical | similar)
        .annotate(
            lexical_rank=Case(When(lexical, then=SearchRank(F("search"), wanted)), default=0.0),
            similarity=_at_least(SIMILAR_ENOUGH, TrigramWordSimilarity(plain, "search_text")),
        )
        .values_list("pk", "lexical_rank", "similarity", "downloads")[:MAX_MATCHES]
    )
    with transaction.atomic(), connection.cursor() as cursor:
        # For this transaction only: the connection may come from a pool.
        cursor.execute(
            "SELECT set_config('pg_trgm.word_similarity_threshold', %s, true)",
            [str(SIMILAR_ENOUGH)],
        )
        found = list(rows)
    by_meaning = [(rank, used, pk) for pk, rank, _, used in found if rank > 0]
    by_looks = [(alike, used, pk) for pk, _, alike, used in found if alike > 0]
    return _fuse(by_meaning, by_looks)


def match_examples(visible: AdapterQuerySet, rows: str) -> dict[int, float]:
    """Find the adapters whose samples resemble the rows; the closest ones only."""
    any_word = Func(
        Value(rows),
        template=f"replace(plainto_tsquery('{CONFIG}', %(expressions)s)::text, '&', '|')::tsquery",
    )
    rank = Func(F("search"), any_word, function="ts_rank", output_field=FloatField())
    sampled = visible.filter(samples__isnull=False).distinct()
    compared = list(
        visible.filter(pk__in=sampled.values("pk"))
        .annotate(nearness=rank)
        .order_by("-nearness", "-downloads")
        .values_list("pk", flat=True)[:MAX_COMPARED]
    )
    texts: dict[int, list[str]] = {}
    samples = Sample.objects.filter(adapter_id__in=compared)
    for pk, given, expected in samples.values_list("adapter_id", "input", "output"):
        texts.setdefault(pk, []).append(f"{given}\n{expected}")
    ranked = rank_by_resemblance(rows, {pk: "\n".join(parts) for pk, parts in texts.items()})
    return dict(ranked[:MAX_ALIKE])


def filter_adapters(
    rows: AdapterQuerySet, query: CatalogueQuery, *, skip: str = ""
) -> AdapterQuerySet:
    """Apply the filters; `skip` leaves one of them out, which is how a facet counts itself."""
    for name, column in FILTERS.items():
        values = query.chosen(name)
        if not values or name == skip:
            continue
        if name == "tag":  # each tag has to be there: two tags narrow, two owners widen
            for value in values:
                rows = rows.filter(tags__name=value)
        else:
            rows = rows.filter(**{f"{column}__in": values})
    if query.rank_min is not None:
        rows = rows.filter(rank__gte=query.rank_min)
    if query.rank_max is not None:
        rows = rows.filter(rank__lte=query.rank_max)
    return rows


def keep_ids(rows: AdapterQuerySet, ids: Iterable[int]) -> AdapterQuerySet:
    """Keep the rows with these ids, given as one array: thousands of parameters would be slow."""
    array = Value(list(ids), output_field=ArrayField(BigIntegerField()))
    is_listed = Func(
        F("pk"),
        array,
        template="%(expressions)s)",
        arg_joiner=" = ANY(",
        output_field=BooleanField(),
    )
    return rows.filter(is_listed)


def order_adapters(rows: AdapterQuerySet, sort: str) -> AdapterQuerySet:
    """Put rows into the order chosen; each order has an index."""
    return rows.order_by(*ORDERS[sort])


def list_adapters() -> AdapterQuerySet:
    """Adapters with everything a row of the shelf shows."""
    return (
        Adapter.objects.select_related("owner", "base_model", "latest")
        .prefetch_related("tags")
        .defer("card", "search", "search_text", "latest__summary_json", "base_model__module_table")
    )


def _fuse(*lists: list[tuple[float, int, int]]) -> dict[int, float]:
    scores: dict[int, float] = {}
    for scored in lists:
        for place, (_, _, pk) in enumerate(sorted(scored, reverse=True), start=1):
            scores[pk] = scores.get(pk, 0.0) + 1 / (FUSION + place)
    return scores


def _at_least(threshold: float, expression: Any) -> Case:
    """The value where it reaches the threshold, otherwise 0."""
    return Case(When(GreaterThanOrEqual(expression, threshold), then=expression), default=0.0)


def _without_accents(text: str) -> str:
    parts = unicodedata.normalize("NFKD", text.lower())
    return "".join(sign for sign in parts if not unicodedata.combining(sign))
