"""Bodies of requests: too large ones are refused before they are read, files stream past memory.

Django's ASGI handler writes every body to a temporary file before a view runs. `guard_bodies`
stands in front of it: it knows the limit of each address, cuts off what is too large or too slow,
and hands the bodies of `STREAMED` addresses unread to the view, which takes them by `read_chunks`.
"""

from __future__ import annotations

import asyncio
import contextvars
import re
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from io import BytesIO
from typing import Any

from asgiref.sync import async_to_sync, sync_to_async
from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.db import connection
from django.http import HttpRequest, HttpResponse

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
ErrorPage = Callable[..., HttpResponse]

# The views behind these addresses check the limit themselves, for they know what is being sent.
STREAMED = re.compile(
    r"PUT /(?:api/v1/uploads/[^/]+/files/[^/]+|_lfs/[^/]+)\Z|"
    r"POST /(?:api/models/[^/]+/[^/]+/commit/.+|_cas/[^/]+/v1/(?:xorbs/[^/]+/[^/]+|shards))\Z"
)
# Forms with files, for browsers without script.
FILE_FORMS = re.compile(r"/upload(/[^/]+/files)?\Z")
FORM_OVERHEAD = 1024 * 1024
CHUNK_BYTES = 256 * 1024
IDLE_SECONDS = 30.0
TOTAL_SECONDS = 15 * 60.0
BYTES_PER_SECOND = 10_000
_READER = "marketplace.body"
_TOO_SLOW = "The request took too long to arrive. Send it again over a faster connection."


class BodyError(Exception):
    """The body did not arrive whole."""


class ClientGone(BodyError):
    """The client broke the connection off."""


class ClientTooSlow(BodyError):
    """The client sent less than the slowest connection worth waiting for."""


class BodyReader:
    """Takes a body from the server, with patience for slow clients but not for silent ones."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._context = contextvars.copy_context()
        self._began: float | None = None
        self._broken: BodyError | None = None
        self.size = 0
        self.is_done = False

    async def read_message(self) -> Message:
        """Return the next message of the body.

        Raises:
            ClientTooSlow: nothing came for a while, or far too little.
            ClientGone: the connection is closed.
        """
        self._began = self._began or time.monotonic()
        try:
            message = await asyncio.wait_for(self._take(), IDLE_SECONDS)
        except TimeoutError:
            raise ClientTooSlow from None
        if message["type"] != "http.request":
            raise ClientGone
        self.size += len(message.get("body", b""))
        self.is_done = not message.get("more_body", False)
        seconds = time.monotonic() - self._began
        crawls = seconds > IDLE_SECONDS and self.size < seconds * BYTES_PER_SECOND
        if not self.is_done and (crawls or seconds > TOTAL_SECONDS):
            raise ClientTooSlow
        return message

    async def read_some(self) -> bytes:
        """Return the next bytes, a good deal of them at once; b"" at the end.

        Raises:
            BodyError: as `read_message` does, after everything that came before was returned.
        """
        found = bytearray()
        while not self.is_done and self._broken is None and len(found) < CHUNK_BYTES:
            try:
                found += (await self.read_message()).get("body", b"")
            except BodyError as error:
                self._broken = error
        if self._broken is not None and not found:
            raise self._broken
        return bytes(found)

    def _take(self) -> asyncio.Task[Message]:
        """Ask the server in the context of the request's beginning.

        A view asks from a thread, by `async_to_sync`. Were that context used, the server would keep
        it with the socket it begins to listen to again, and the next request on the connection
        would run in it and look for a thread that is gone.
        """
        return asyncio.get_running_loop().create_task(self._ask(), context=self._context)

    async def _ask(self) -> Message:
        return await self._receive()


def read_chunks(request: HttpRequest) -> Iterator[bytes]:
    """Yield the body piece by piece; from the network where `guard_bodies` left it there.

    Raises:
        ClientGone: the client broke off.
        ClientTooSlow: it sends too slowly.
    """
    reader: BodyReader | None = getattr(request, "scope", {}).get(_READER)
    read = async_to_sync(reader.read_some) if reader else lambda: request.read(CHUNK_BYTES)
    while chunk := read():
        yield chunk


def give_back_connection() -> None:
    """Let others use this request's database connection while it waits for something slow."""
    if "pool" in connection.settings_dict["OPTIONS"] and not connection.in_atomic_block:
        connection.close()


def guard_bodies(application: Application, error_page: ErrorPage) -> Application:
    """Wrap Django's ASGI application; `error_page(request, status, detail=…)` refuses."""

    async def guarded(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await application(scope, receive, send)
            return
        reader = BodyReader(receive)
        if STREAMED.match(f"{scope['method']} {scope['path']}"):
            answer = _closing(send, reader, scope)
            await application({**scope, _READER: reader}, _empty_body(), answer)
            return
        limit = _limit_of(scope)
        if _read_length(scope) > limit:
            page = await sync_to_async(error_page)(_request_of(scope), 413)
            await _refuse(send, page)
            return
        guard = _Guard(reader, receive, limit)
        await application(scope, guard.receive, send)
        if guard.refusal:
            status, detail = guard.refusal
            page = await sync_to_async(error_page)(_request_of(scope), status, detail=detail)
            await _refuse(send, page)

    return guarded


class _Guard:
    """Counts what Django reads; at the limit Django is told that the client is gone."""

    def __init__(self, reader: BodyReader, receive: Receive, limit: int) -> None:
        self._reader = reader
        self._receive = receive
        self._limit = limit
        self.refusal: tuple[int, str] | None = None

    async def receive(self) -> Message:
        """Return the next message for Django."""
        if self._reader.is_done:  # from here on Django only waits for the end of the connection
            return await self._receive()
        try:
            message = await self._reader.read_message()
        except ClientTooSlow:
            self.refusal = (400, _TOO_SLOW)
        except ClientGone:
            return {"type": "http.disconnect"}
        else:
            if self._reader.size <= self._limit:
                return message
            self.refusal = (413, "")
        return {"type": "http.disconnect"}


def _empty_body() -> Receive:
    """Give Django an empty body, and no end of the connection: the view's reader sees that."""
    told = False

    async def receive() -> Message:
        nonlocal told
        if told:
            await asyncio.Event().wait()
        told = True
        return {"type": "http.request", "body": b"", "more_body": False}

    return receive


def _closing(send: Send, reader: BodyReader, scope: MutableMapping[str, Any]) -> Send:
    """Close the connection after an answer to a body that is not worth waiting for.

    A body of a sensible length is read to its end and thrown away: a browser that is still sending
    takes a closed connection for a broken one, and its user would not see the reason.
    """

    async def answer(message: Message) -> None:
        sensible = 0 < _read_length(scope) <= settings.MAX_UPLOAD_BYTES
        if message["type"] == "http.response.start" and not (reader.is_done or sensible):
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        await send(message)

    return answer


def _limit_of(scope: MutableMapping[str, Any]) -> int:
    if scope["method"] == "POST" and FILE_FORMS.match(scope["path"]):
        return int(settings.MAX_UPLOAD_BYTES) + FORM_OVERHEAD
    return int(settings.DATA_UPLOAD_MAX_MEMORY_SIZE)


def _read_length(scope: MutableMapping[str, Any]) -> int:
    """Return the length that was announced, 0 for none."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:20])
    return 0


def _request_of(scope: MutableMapping[str, Any]) -> HttpRequest:
    return ASGIRequest(dict(scope), BytesIO())


async def _refuse(send: Send, page: HttpResponse) -> None:
    """Answer, and close the connection: the rest of the body is not wanted."""
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in page.items()]
    headers += [(b"connection", b"close"), (b"content-length", b"%d" % len(page.content))]
    await send({"type": "http.response.start", "status": page.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": page.content})
