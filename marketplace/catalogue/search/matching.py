"""From a query to rows: text matches with their scores, filters, and the order of a page.

Every set starts from `visible_to`, so nothing hidden can be found, counted or sorted by. Words
match by meaning (stemmed, without accents) or by looks (word similarity, which forgives typing
mistakes); the two lists are fused by reciprocal rank.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.search import SearchQuery, SearchRank, TrigramWordSimilarity
from django.db import connection, models, transaction
from django.db.models import (
    BigIntegerField,
    BooleanField,
    Count,
    F,
    FloatField,
    Func,
    Value,
)

from marketplace.catalogue.models import Adapter, Sample
from marketplace.catalogue.querysets import AdapterQuerySet
from marketplace.catalogue.search.cursors import ORDERS
from marketplace.catalogue.search.query import FACTOR, FILTERS, CatalogueQuery, Fit
from marketplace.catalogue.search.resemblance import rank_by_resemblance

CONFIG = "catalogue"
# Below pg_trgm's default of 0.6, which does not forgive "pixl anme".
SIMILAR_ENOUGH = 0.4
# Reciprocal rank fusion: 1 / (60 + place), added up over the lists that an adapter is in.
FUSION = 60
MAX_MATCHES = 20_000  # a word that finds more than this narrows nothing down
MAX_COMPARED = 1_000  # adapters whose samples are compared with given examples
MAX_ALIKE = 200
# So many answers by meaning need no help from words that merely look alike.
ENOUGH = 200
MAX_TYPED = 6  # words that are looked for by their looks

_Scored = tuple[float, int, int]  # how near, downloads, id


def match_text(visible: AdapterQuerySet, query: CatalogueQuery) -> dict[int, float] | None:
    """Return the score of each adapter that the text finds, or None where there is no text."""
    if not query.text:
        return None
    if query.mode == "examples":
        return match_examples(visible, query.examples)
    return match_words(visible, query.words)


def match_words(visible: AdapterQuerySet, words: str) -> dict[int, float]:
    """Find words in names, summaries, tags, samples and cards, with or without typing mistakes."""
    by_meaning = _match_by_meaning(visible, words)
    if len(by_meaning) >= ENOUGH:
        return _fuse(by_meaning)
    return _fuse(by_meaning, _match_by_looks(visible, words))


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
            rows = rows.filter(pk__in=_having_all(values))
        else:
            rows = rows.filter(**{f"{column}__in": values})
    if query.fits:
        rows = _keep_fitting(rows, query)
    if query.rank_min is not None:
        rows = rows.filter(rank__gte=query.rank_min)
    if query.rank_max is not None:
        rows = rows.filter(rank__lte=query.rank_max)
    return rows


def _keep_fitting(rows: AdapterQuerySet, query: CatalogueQuery) -> AdapterQuerySet:
    """Keep what composes with the adapter named, as `composer.compatibility` has it."""
    fit = query.fit
    if fit is None or fit.base_model_id is None:
        return rows.filter(pk=0)  # none(), but as a query that can be counted
    rows = rows.filter(base_model_id=fit.base_model_id, latest__isnull=False).exclude(pk=fit.pk)
    if fit.peft_task:  # an unknown task goes with any
        rows = rows.filter(peft_task__in=(fit.peft_task, ""))
    return rows.filter(shape_key=fit.shape_key) if query.by == FACTOR else rows


def find_fit(visible: AdapterQuerySet, full_name: str) -> Fit | None:
    """Return what composing with this adapter asks for; None where the visitor sees no such one."""
    owner, _, name = full_name.partition("/")
    columns = ("pk", "base_model_id", "peft_task", "shape_key")
    row = visible.named(owner, name).filter(latest__isnull=False).values_list(*columns).first()
    return Fit(*row) if row else None


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
    return ORDERS[sort].sort(rows)


def list_adapters() -> AdapterQuerySet:
    """Adapters with everything a row of the shelf shows."""
    return (
        Adapter.objects.select_related("owner", "base_model", "latest")
        .prefetch_related("tags")
        .defer("card", "search", "search_text", "latest__summary_json", "base_model__module_table")
    )


def _match_by_meaning(visible: AdapterQuerySet, words: str) -> list[_Scored]:
    wanted = SearchQuery(words, config=CONFIG, search_type="websearch")
    rows = visible.filter(search=wanted).annotate(nearness=SearchRank(F("search"), wanted))
    return list(rows.values_list("nearness", "downloads", "pk")[:MAX_MATCHES])


def _match_by_looks(visible: AdapterQuerySet, words: str) -> list[_Scored]:
    """Every word has to resemble a part of the text; the mean of how much is the score."""
    typed = _split(words)
    if not typed:
        return []
    alike = (TrigramWordSimilarity(word, "search_text") for word in typed)
    rows = visible.annotate(nearness=sum(alike, Value(0.0)))
    for word in typed:
        rows = rows.filter(search_text__trigram_word_similar=word)
    with transaction.atomic(), connection.cursor() as cursor:
        # For this transaction only: the connection may come from a pool.
        cursor.execute(
            "SELECT set_config('pg_trgm.word_similarity_threshold', %s, true)",
            [str(SIMILAR_ENOUGH)],
        )
        return list(rows.values_list("nearness", "downloads", "pk")[:MAX_MATCHES])


def _having_all(tags: Sequence[str]) -> models.QuerySet[Any, Any]:
    """Ids of adapters with every tag, in one subquery however many there are."""
    links = Adapter.tags.through.objects.filter(tag__name__in=tags)
    counted = links.values("adapter_id").alias(number=Count("*"))
    return counted.filter(number=len(tags))  # type: ignore[misc] # an alias on a through table


def _fuse(*lists: list[_Scored]) -> dict[int, float]:
    scores: dict[int, float] = {}
    for scored in lists:
        for place, (_, _, pk) in enumerate(sorted(scored, reverse=True), start=1):
            scores[pk] = scores.get(pk, 0.0) + 1 / (FUSION + place)
    return scores


def _split(words: str) -> list[str]:
    """The words to look for by their looks: without accents, operators and what is too short."""
    parts = unicodedata.normalize("NFKD", words.lower())
    plain = "".join(sign for sign in parts if not unicodedata.combining(sign))
    found = re.findall(r"(?<!-)\b[^\W_]{3,}", plain)
    return [word for word in dict.fromkeys(found) if word not in {"and", "or", "the", "for"}][
        :MAX_TYPED
    ]
