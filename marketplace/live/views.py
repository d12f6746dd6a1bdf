"""Events of a channel: as a stream (SSE), or polled where a stream cannot be had.

Both give the same rows. A stream ends after five minutes; the browser then opens the next one by
itself and says which event it saw last. A channel that the visitor may not hear is not found.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth.models import AnonymousUser
from django.db import close_old_connections
from django.http import Http404, HttpRequest, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.views.decorators.http import require_safe

from marketplace.accounts.models import User
from marketplace.live.channels import may_listen
from marketplace.live.listening import listener_of_this_loop
from marketplace.live.models import Event

STREAM_SECONDS = 300.0
PING_SECONDS = 15.0
BATCH = 200
MAX_STREAMS_PER_USER = 10

_open_streams: Counter[str] = Counter()


async def stream(request: HttpRequest, channel: str) -> HttpResponseBase:
    """Send the channel's events as they happen."""
    user = await request.auser()
    if not await sync_to_async(_decide)(user, channel):
        raise Http404
    who = str(user.pk or request.META.get("REMOTE_ADDR", ""))
    if _open_streams[who] >= MAX_STREAMS_PER_USER:
        error = {"error": f"At most {MAX_STREAMS_PER_USER} live pages at once. Close some."}
        return JsonResponse(error, status=429, headers={"Retry-After": "30"})
    after = _read_last_id(request)
    response = StreamingHttpResponse(_events(who, channel, after), content_type="text/event-stream")
    response["Cache-Control"] = "no-store"
    response["X-Accel-Buffering"] = "no"
    return response


@require_safe
def poll(request: HttpRequest, channel: str) -> JsonResponse:
    """Return the events after `?after=`, at most 200 of them."""
    if not may_listen(_viewer(request), channel):
        raise Http404
    events = read_events(channel, after=_read_last_id(request))
    return JsonResponse({"events": events}, headers={"Cache-Control": "no-store"})


def read_events(channel: str, *, after: int) -> list[dict[str, Any]]:
    """Return the next events of a channel, oldest first."""
    rows = Event.objects.filter(channel=channel, pk__gt=after).order_by("pk")[:BATCH]
    return [{"id": row.pk, "kind": row.kind, "data": row.data} for row in rows]


async def _events(who: str, channel: str, after: int) -> AsyncIterator[str]:
    loop = asyncio.get_running_loop()
    end = loop.time() + STREAM_SECONDS
    _open_streams[who] += 1
    try:
        async with listener_of_this_loop().wake_ups(channel) as wake_up:
            yield ": connected\n\n"
            while loop.time() < end:
                wake_up.clear()
                events = await sync_to_async(_read_and_let_go)(channel, after)
                for event in events:
                    after = event["id"]
                    yield _format(event)
                if len(events) < BATCH and not await _wait(wake_up):
                    yield ": ping\n\n"
    finally:
        _open_streams[who] -= 1
        if not _open_streams[who]:
            del _open_streams[who]


async def _wait(wake_up: asyncio.Event) -> bool:
    try:
        await asyncio.wait_for(wake_up.wait(), PING_SECONDS)
    except TimeoutError:
        return False
    return True


def _read_and_let_go(channel: str, after: int) -> list[dict[str, Any]]:
    """Read, then give the connection back: a stream must not hold one while it waits."""
    try:
        return read_events(channel, after=after)
    finally:
        close_old_connections()


def _decide(user: User | AnonymousUser, channel: str) -> bool:
    return may_listen(user, channel)


def _format(event: dict[str, Any]) -> str:
    data = json.dumps(event["data"], separators=(",", ":"))
    return f"id: {event['id']}\nevent: {event['kind']}\ndata: {data}\n\n"


def _read_last_id(request: HttpRequest) -> int:
    text = request.headers.get("Last-Event-ID") or request.GET.get("after", "0")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0  # noqa: PLR2004


def _viewer(request: HttpRequest) -> User | AnonymousUser:
    user = request.user
    return user if isinstance(user, User) else AnonymousUser()
