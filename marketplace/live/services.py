"""Say something on a channel. The row and the wake-up are part of the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import connection, transaction

from marketplace.live.models import Event

POSTGRES_CHANNEL = "marketplace_live"
LOCK_CLASS = 0x6C697665  # "live": ours among the advisory locks of the database


def publish(channel: str, kind: str, data: Mapping[str, Any] | None = None) -> Event:
    """Write an event and wake the listeners; PostgreSQL tells them when the transaction commits.

    The notification carries only the channel's name: what happened is read from the row. Others who
    publish on the channel wait until the transaction ends, so publish last in long ones.
    """
    with transaction.atomic():
        # Without this a lower id could be committed after a higher one, and a browser that read
        # on from the higher one would never see it.
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", [LOCK_CLASS, channel])
        event = Event.objects.create(channel=channel, kind=kind, data=dict(data or {}))
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, %s)", [POSTGRES_CHANNEL, channel])
    return event
