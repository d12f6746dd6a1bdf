"""One listening connection to PostgreSQL for each process, shared by all its open streams.

It is opened when the first stream begins and closed when the last one ends. While it is away (the
database restarts) it says so, and streams look for themselves every few seconds: nothing is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

import psycopg
from django.conf import settings

from marketplace.live.services import POSTGRES_CHANNEL

logger = logging.getLogger(__name__)

RECONNECT_SECONDS = 1.0


class Listener:
    """Hands wake-ups of channels to the streams of one event loop."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._task: asyncio.Task[None] | None = None
        self.is_connected = False

    @contextlib.asynccontextmanager
    async def wake_ups(self, channel: str) -> AsyncIterator[asyncio.Event]:
        """Give an asyncio.Event that is set whenever something was said on the channel."""
        wake_up = asyncio.Event()
        self._waiting[channel].add(wake_up)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._listen())
        try:
            yield wake_up
        finally:
            self._waiting[channel].discard(wake_up)
            if not self._waiting[channel]:
                del self._waiting[channel]
            if not self._waiting and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _listen(self) -> None:
        while True:
            try:
                await self._listen_once()
            except (psycopg.Error, OSError) as error:
                logger.warning("live: the listening connection is lost, trying again: %s", error)
                await asyncio.sleep(RECONNECT_SECONDS)

    async def _listen_once(self) -> None:
        connection = await psycopg.AsyncConnection.connect(**_arguments(), autocommit=True)
        async with connection:
            await connection.execute(f"LISTEN {POSTGRES_CHANNEL}")
            self.is_connected = True
            self._wake_all()  # what was said while nobody listened
            try:
                async for notification in connection.notifies():
                    for wake_up in self._waiting.get(notification.payload, ()):
                        wake_up.set()
            finally:
                self.is_connected = False

    def _wake_all(self) -> None:
        for wake_ups in self._waiting.values():
            for wake_up in wake_ups:
                wake_up.set()


# Weak: a loop that is gone takes its listener along.
_listeners: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Listener] = (
    weakref.WeakKeyDictionary()
)


def listener_of_this_loop() -> Listener:
    """Return the listener of the running event loop; a server process has one loop."""
    return _listeners.setdefault(asyncio.get_running_loop(), Listener())


def _arguments() -> dict[str, Any]:
    """Return psycopg's arguments for settings.LISTEN_DATABASE."""
    database = settings.LISTEN_DATABASE
    names = {
        "dbname": "NAME",
        "user": "USER",
        "password": "PASSWORD",
        "host": "HOST",
        "port": "PORT",
    }
    found = {name: database.get(key) for name, key in names.items()}
    given = {name: value for name, value in found.items() if value}
    return {"application_name": "marketplace-live", **database.get("OPTIONS", {}), **given}
