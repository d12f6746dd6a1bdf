"""Likes and downloads: many small increments that must neither collide nor slow a page."""

from __future__ import annotations

from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from marketplace.accounts.models import User
from marketplace.catalogue.models import Adapter, DownloadCount, Like


def like(adapter: Adapter, user: User) -> int:
    """Like the adapter and return its count; a second time changes nothing."""
    with transaction.atomic():
        # The row itself says whether it is new: ON CONFLICT cannot be raced.
        _, is_new = Like.objects.get_or_create(user=user, adapter=adapter)
        if is_new:
            Adapter.objects.filter(pk=adapter.pk).update(likes=F("likes") + 1)
    return _read_likes(adapter)


def unlike(adapter: Adapter, user: User) -> int:
    """Take the like back and return the count."""
    with transaction.atomic():
        removed, _ = Like.objects.filter(user=user, adapter=adapter).delete()
        if removed:
            Adapter.objects.filter(pk=adapter.pk, likes__gt=0).update(likes=F("likes") - 1)
    return _read_likes(adapter)


def count_download(adapter: Adapter) -> None:
    """Count one download, for the total and for the day, whoever else counts at the same moment."""
    table = connection.ops.quote_name(DownloadCount._meta.db_table)
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO {table} (adapter_id, day, count) VALUES (%s, %s, 1) "  # noqa: S608
                f"ON CONFLICT (adapter_id, day) DO UPDATE SET count = {table}.count + 1",
                [adapter.pk, timezone.now().date()],
            )
        Adapter.objects.filter(pk=adapter.pk).update(downloads=F("downloads") + 1)


def _read_likes(adapter: Adapter) -> int:
    return Adapter.objects.values_list("likes", flat=True).get(pk=adapter.pk)
