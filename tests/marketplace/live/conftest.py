"""A browser that listens to the site inside the test, and a channel to listen to."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIHandler
from django.db import connection, connections

from marketplace.live import channels, views
from marketplace.live.services import publish

PATIENCE = 10  # seconds until a test gives up waiting


@dataclass
class Listening:
    """An answer that may still be arriving."""

    queue: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    text: str = ""
    ended: bool = False

    async def next_piece(self) -> None:
        message = await asyncio.wait_for(self.queue.get(), PATIENCE)
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {
                key.decode().lower(): value.decode() for key, value in message["headers"]
            }
        else:
            self.text += message.get("body", b"").decode()
            self.ended = not message.get("more_body", False)

    async def wait_for(self, text: str) -> None:
        while text not in self.text:
            assert not self.ended, f"ended without {text!r}: {self.text!r}"
            await self.next_piece()

    async def read_to_end(self) -> None:
        while not self.ended:
            await self.next_piece()

    @property
    def events(self) -> list[dict[str, Any]]:
        blocks = [block.splitlines() for block in self.text.split("\n\n")]
        fields = [dict(line.split(": ", 1) for line in lines if ": " in line) for lines in blocks]
        return [
            {"id": int(found["id"]), "kind": found["event"], "data": json.loads(found["data"])}
            for found in fields
            if "id" in found
        ]


@contextlib.asynccontextmanager
async def listen(
    channel: str, *, headers: dict[str, str] | None = None, query: str = "", method: str = "GET"
) -> AsyncIterator[Listening]:
    """Open the stream of a channel as a browser would; leaving the block closes the page."""
    listening = Listening()
    scope = {
        "type": "http", "http_version": "1.1", "method": method, "scheme": "http",
        "path": f"/live/{channel}", "query_string": query.encode(), "client": ["127.0.0.1", 1],
        "server": ("testserver", 80),
        "headers": [
            (name.lower().encode(), value.encode())
            for name, value in {"host": "testserver", **(headers or {})}.items()
        ],
    }  # fmt: skip
    said = False

    async def receive() -> dict[str, Any]:
        nonlocal said
        if not said:
            said = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await listening.gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Mapping[str, Any]) -> None:
        await listening.queue.put(dict(message))

    task = asyncio.create_task(ASGIHandler()(scope, receive, send))
    try:
        await listening.next_piece()
        yield listening
    finally:
        listening.gone.set()
        await asyncio.wait_for(task, PATIENCE)


@pytest.fixture
def say():
    """Publish from another thread with a connection of its own, as another process would."""

    def in_thread(channel: str, kind: str, data: dict[str, Any]) -> int:
        try:
            return publish(channel, kind, data).pk
        finally:
            connections.close_all()

    async def say(kind: str, channel: str = "room:1", **data: Any) -> int:
        return await sync_to_async(in_thread, thread_sensitive=False)(channel, kind, data)

    return say


@pytest.fixture(autouse=True)
def _rooms(monkeypatch, settings):
    """Channels `room:…` that everybody may hear, `mine:<user>` for one; none stays registered."""
    monkeypatch.setattr(channels, "_deciders", dict(channels._deciders))
    channels.register("room", lambda user, key: True)
    channels.register("mine", lambda user, key: user.username == key)
    settings.LISTEN_DATABASE = {
        **settings.LISTEN_DATABASE,
        "NAME": connection.settings_dict["NAME"],
    }
    views._open_streams.clear()


@pytest.fixture
def run():
    """Run a coroutine in a loop of its own, so that the test itself can stay an ordinary one."""
    return asyncio.run
