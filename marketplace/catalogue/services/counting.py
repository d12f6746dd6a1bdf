"""Likes and downloads: many small increments that must neither collide nor slow a page.

A download is one new row and touches no other. Every few seconds `add_up_downloads` moves them into
the counts by day and the totals, and says anew how much the adapter is in demand at present.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date

from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from marketplace.accounts.models import User
from marketplace.catalogue.models import Adapter, DownloadCount, Like, NewDownload

BATCH = 10_000
LOCK = 0x646F776E  # of all who add up; any number that nobody else uses
HALF_LIFE_DAYS = 7
REMEMBERED_DAYS = 90  # what is older weighs less than a thousandth
LIKE_WEIGHT = 5  # one like is worth so many downloads
# Trends are told from here on. Any day before the first download will do.
FIRST_DAY = date(2020, 1, 1)


def like(adapter: Adapter, user: User) -> int:
    """Like the adapter and return its count; a second time changes nothing."""
    with transaction.atomic():
        # The row itself says whether it is new: ON CONFLICT cannot be raced.
        _, is_new = Like.objects.get_or_create(user=user, adapter=adapter)
        if is_new:
            Adapter.objects.filter(pk=adapter.pk).update(likes=F("likes") + 1)
            _tell_trends([adapter.pk])
    return _read_likes(adapter)


def unlike(adapter: Adapter, user: User) -> int:
    """Take the like back and return the count."""
    with transaction.atomic():
        removed, _ = Like.objects.filter(user=user, adapter=adapter).delete()
        if removed:
            Adapter.objects.filter(pk=adapter.pk, likes__gt=0).update(likes=F("likes") - 1)
            _tell_trends([adapter.pk])
    return _read_likes(adapter)


def count_download(adapter: Adapter) -> None:
    """Note one download, whoever else downloads just now; `add_up_downloads` counts it."""
    NewDownload.objects.create(adapter_id=adapter.pk, day=_today())


def add_up_downloads() -> int:
    """Move noted downloads into the counts; return how many batches there were.

    Only one process adds up at a time: another one that comes meanwhile leaves it to the first.
    """
    batches = 0
    while _add_up_a_batch():
        batches += 1
    return batches


def _add_up_a_batch() -> bool:
    new, days, adapters = (
        connection.ops.quote_name(model._meta.db_table)
        for model in (NewDownload, DownloadCount, Adapter)
    )
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [LOCK])
        if not cursor.fetchone()[0]:
            return False
        cursor.execute(
            f"WITH taken AS (DELETE FROM {new} WHERE id IN "  # noqa: S608
            f"(SELECT id FROM {new} ORDER BY id LIMIT %s) RETURNING adapter_id, day), "
            "counted AS (SELECT adapter_id, day, count(*) AS number FROM taken "
            f"JOIN {adapters} a ON a.id = adapter_id GROUP BY adapter_id, day), "
            f"kept AS (INSERT INTO {days} AS d (adapter_id, day, count) "
            "SELECT adapter_id, day, number FROM counted ON CONFLICT (adapter_id, day) "
            "DO UPDATE SET count = d.count + excluded.count) "
            f"UPDATE {adapters} SET downloads = downloads + total FROM "
            "(SELECT adapter_id, sum(number) AS total FROM counted GROUP BY adapter_id) AS sums "
            f"WHERE {adapters}.id = sums.adapter_id RETURNING {adapters}.id",
            [BATCH],
        )
        counted = [pk for (pk,) in cursor.fetchall()]
        _tell_trends(counted)
    return bool(counted)


def _tell_trends(ids: Iterable[int]) -> None:
    """Say anew how much these are in demand: downloads and likes, of which a week leaves half.

    Kept is the logarithm of the sum as it would stand on FIRST_DAY. It sorts like the sum itself,
    but time alone never changes it: an adapter that nobody asks for need not be written again.
    """
    days, likes, adapters = (
        connection.ops.quote_name(model._meta.db_table) for model in (DownloadCount, Like, Adapter)
    )
    today = _today()
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {adapters} SET trending = CASE WHEN total > 0 "  # noqa: S608
            "THEN ln(total) / ln(2.0::float8) + %(shift)s ELSE 0 END FROM ("
            "SELECT a.pk, coalesce(sum(e.amount * power(2.0, (e.day - %(today)s) / %(half)s)), 0)"
            "::float8 AS total FROM unnest(%(ids)s::bigint[]) AS a(pk) LEFT JOIN ("
            f"SELECT adapter_id, day, count::float8 AS amount FROM {days} "
            "WHERE adapter_id = ANY(%(ids)s) AND day > %(oldest)s UNION ALL "
            f"SELECT adapter_id, (created_at AT TIME ZONE 'UTC')::date, %(like)s FROM {likes} "
            "WHERE adapter_id = ANY(%(ids)s) AND created_at > %(oldest)s"
            f") AS e ON e.adapter_id = a.pk GROUP BY a.pk) AS sums WHERE {adapters}.id = sums.pk",
            {
                "ids": list(ids),
                "today": today,
                "oldest": date.fromordinal(today.toordinal() - REMEMBERED_DAYS),
                "half": float(HALF_LIFE_DAYS),
                "like": float(LIKE_WEIGHT),
                "shift": (today - FIRST_DAY).days / HALF_LIFE_DAYS,
            },
        )


def _today() -> date:
    return timezone.now().astimezone(UTC).date()


def _read_likes(adapter: Adapter) -> int:
    return Adapter.objects.values_list("likes", flat=True).get(pk=adapter.pk)
