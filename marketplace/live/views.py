"""Events of a channel: as a stream (SSE), or polled where a stream cannot be had.

Both give the same rows. A stream ends after five minutes; the browser then opens the next one by
itself and says which event it saw last. A channel that the visitor may not hear is not found.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from asgiref.sync import sync_to_async
from django.db import DatabaseError, InterfaceError, close_old_connections
from django.http import Http404, HttpRequest, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.views.decorators.http import require_GET, require_safe

from marketplace.client_addresses import client_address
from marketplace.live.channels import may_listen
from marketplace.live.listening import listener_of_this_loop
from marketplace.live.models import Event

logger = logging.getLogger(__name__)

STREAM_SECONDS = 300.0
PING_SECONDS = 15.0
BLIND_SECONDS = 2.0  # between looks while the listening connection is away
RETRY_MILLISECONDS = 2000
BATCH = 200
MAX_STREAMS_PER_USER = 10
BIGINT_DIGITS = 18

_open_streams: Counter[str] = Counter()


@require_GET
def stream(request: HttpRequest, channel: str) -> HttpResponseBase:
    """Send the channel's events as they happen."""
    if not may_listen(request.user, channel):
        raise Http404
    if not hasattr(request, "scope"):
        error = {"error": "This server sends no streams. Poll the address with /events after it."}
        return JsonResponse(error, status=503)
    pk = request.user.pk
    who = f"user {pk}" if pk else client_address(request)
    if _open_streams[who] >= MAX_STREAMS_PER_USER:
        error = {"error": f"At most {MAX_STREAMS_PER_USER} live pages at once. Close some."}
        return JsonResponse(error, status=429, headers={"Retry-After": "30"})
    events = Stream(request.user, channel, after=_read_last_id(request)).events(who)
    response = StreamingHttpResponse(events, content_type="text/event-stream")
    response["Cache-Control"] = "no-store"
    response["X-Accel-Buffering"] = "no"
    return response


@require_safe
def poll(request: HttpRequest, channel: str) -> JsonResponse:
    """Return the events after `?after=`, at most 200 of them."""
    if not may_listen(request.user, channel):
        raise Http404
    events = read_events(channel, after=_read_last_id(request))
    return JsonResponse({"events": events}, headers={"Cache-Control": "no-store"})


def read_events(channel: str, *, after: int) -> list[dict[str, Any]]:
    """Return the next events of a channel, oldest first."""
    rows = Event.objects.filter(channel=channel, pk__gt=after).order_by("pk")[:BATCH]
    return [{"id": row.pk, "kind": row.kind, "data": row.data} for row in rows]


class Stream:
    """One open stream: who listens to what, and the last event it sent."""

    def __init__(self, user: Any, channel: str, *, after: int) -> None:
        self.user = user
        self.channel = channel
        self.after = after

    async def events(self, who: str) -> AsyncGenerator[str, None]:
        """Yield the stream's text until it is five minutes old, counted as one of `who`'s."""
        if _open_streams[who] >= MAX_STREAMS_PER_USER:  # others began since the view looked
            yield "retry: 30000\n\n"
            return
        _open_streams[who] += 1
        try:
            yield f"retry: {RETRY_MILLISECONDS}\n\n"
            async for text in self._until_too_old():
                yield text
        except (DatabaseError, InterfaceError) as error:
            logger.warning("live: a stream ended because the database is away: %s", error)
        finally:
            _open_streams[who] -= 1
            if not _open_streams[who]:
                del _open_streams[who]

    async def _until_too_old(self) -> AsyncIterator[str]:
        loop = asyncio.get_running_loop()
        end, ping = loop.time() + STREAM_SECONDS, loop.time() + PING_SECONDS
        listener = listener_of_this_loop()
        async with listener.wake_ups(self.channel) as wake_up:
            while loop.time() < end:
                wake_up.clear()
                events = await sync_to_async(self._read)()
                for event in events:
                    yield _format(event)
                if len(events) == BATCH:
                    continue
                if loop.time() >= ping:
                    if not await sync_to_async(self._may_stay)():
                        return
                    yield ": ping\n\n"
                    ping = loop.time() + PING_SECONDS
                pause = ping if listener.is_connected else loop.time() + BLIND_SECONDS
                await _wait(wake_up, min(pause, ping, end) - loop.time())

    def _read(self) -> list[dict[str, Any]]:
        """Read, then give the connection back: a stream must not hold one while it waits."""
        try:
            events = read_events(self.channel, after=self.after)
        finally:
            close_old_connections()
        if events:
            self.after = events[-1]["id"]
        return events

    def _may_stay(self) -> bool:
        """Ask again: what was public may have become private since the stream began."""
        try:
            return may_listen(self.user, self.channel)
        finally:
            close_old_connections()


async def _wait(wake_up: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(wake_up.wait(), max(seconds, 0.01))
    except TimeoutError:
        return


def _format(event: dict[str, Any]) -> str:
    data = json.dumps(event["data"], separators=(",", ":"))
    return f"id: {event['id']}\nevent: {event['kind']}\ndata: {data}\n\n"


def _read_last_id(request: HttpRequest) -> int:
    text = request.headers.get("Last-Event-ID") or request.GET.get("after", "0")
    is_number = text.isascii() and text.isdigit() and len(text) <= BIGINT_DIGITS
    return int(text) if is_number else 0
