"""Say something on a channel. The row and the wake-up are part of the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import connection, transaction

from marketplace.live.models import Event

POSTGRES_CHANNEL = "marketplace_live"


def publish(channel: str, kind: str, data: Mapping[str, Any] | None = None) -> Event:
    """Write an event and wake the listeners; PostgreSQL tells them when the transaction commits.

    The notification carries only the channel's name: what happened is read from the row.
    """
    with transaction.atomic():
        event = Event.objects.create(channel=channel, kind=kind, data=dict(data or {}))
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, %s)", [POSTGRES_CHANNEL, channel])
    return event
