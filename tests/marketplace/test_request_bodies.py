"""Large bodies are refused before they are read, slow ones cut off, files streamed."""

from __future__ import annotations

import asyncio
import contextvars
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.utils import timezone

from marketplace import request_bodies
from marketplace.accounts.models import ApiToken
from marketplace.asgi import application
from marketplace.request_bodies import (
    BodyReader,
    ClientGone,
    ClientTooSlow,
    guard_bodies,
    read_chunks,
)
from marketplace.uploads import quarantine
from marketplace.uploads.models import UploadedFile
from marketplace.uploads.services import create_upload
from tests.factories import make_user

Message = MutableMapping[str, Any]
FILE = f"/api/v1/uploads/{uuid.uuid4()}/files/a.txt"


class Client:
    """Sends one request to an ASGI application and keeps what comes back."""

    def __init__(self, *chunks: bytes, ends: str = "whole", pause: float = 0) -> None:
        self._messages: list[Message] = [
            {"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks
        ]
        if ends == "whole":
            self._messages.append({"type": "http.request", "body": b"", "more_body": False})
        elif ends == "gone":
            self._messages.append({"type": "http.disconnect"})
        self._pause = pause
        self.taken = 0
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        if self.taken >= len(self._messages):
            await asyncio.Event().wait()
        await asyncio.sleep(self._pause)
        self.taken += 1
        return self._messages[self.taken - 1]

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    def ask(self, app: Any, method: str, path: str, **headers: str) -> int:
        """Return the status; 0 where nothing was answered."""
        names = {name.replace("_", "-").lower(): value for name, value in headers.items()}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "scheme": "http",
            "server": ("testserver", 80),
            "client": ("127.0.0.1", 1234),
            "headers": [(b"host", b"testserver")]
            + [(name.encode(), value.encode()) for name, value in names.items()],
        }
        asyncio.run(app(scope, self.receive, self.send))
        return int(self.sent[0]["status"]) if self.sent else 0

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])


def counting(seen: list[int]) -> Any:
    """An application that reads the whole body, as Django does, and notes its size."""

    async def app(
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size += len(message["body"])
            more = message["more_body"]
        seen.append(size)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"fine"})

    return app


def page(request: HttpRequest, status: int, *, detail: str = "") -> HttpResponse:
    return HttpResponse(f"{request.path} {detail}", status=status)


@pytest.fixture
def seen() -> list[int]:
    return []


@pytest.fixture
def app(seen: list[int]) -> Any:
    return guard_bodies(counting(seen), page)


def test_it_works(app, seen):
    client = Client(b"ab", b"cd")

    assert client.ask(app, "POST", "/compose", content_length="4") == 200
    assert seen == [4]
    assert client.body == b"fine"


def test_an_announced_giant_is_refused_unread(app, seen):
    client = Client(b"x")

    assert client.ask(app, "POST", "/upload", content_length="10000000000") == 413
    assert client.taken == 0
    assert seen == []
    assert (b"connection", b"close") in client.sent[0]["headers"]


def test_a_silent_giant_is_cut_at_the_limit(app, seen, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 10
    client = Client(*[b"x" * 4] * 100)

    assert client.ask(app, "POST", "/api/v1/jobs") == 413
    assert client.taken == 3
    assert seen == []


def test_forms_with_files_may_be_as_large_as_an_upload(app, seen, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 10
    for path in ("/upload", f"/upload/{uuid.uuid4()}/files"):
        assert Client(b"x" * 50).ask(app, "POST", path) == 200
    assert Client(b"x" * 50).ask(app, "POST", "/upload/x/discard") == 413
    settings.MAX_UPLOAD_BYTES = 0
    large = str(request_bodies.FORM_OVERHEAD + 1)
    assert Client().ask(app, "POST", "/upload", content_length=large) == 413


def test_a_client_that_is_gone_gets_no_answer(app, seen):
    assert Client(b"x", ends="gone").ask(app, "POST", "/compose") == 0
    assert seen == []


def test_a_silent_client_is_cut_off(app, seen, monkeypatch):
    monkeypatch.setattr(request_bodies, "IDLE_SECONDS", 0.05)
    client = Client(b"x", ends="never")

    assert client.ask(app, "POST", "/compose") == 400
    assert b"too long to arrive" in client.body


def test_a_crawling_client_is_cut_off(app, monkeypatch):
    monkeypatch.setattr(request_bodies, "IDLE_SECONDS", 0.1)
    client = Client(*[b"x"] * 100, pause=0.02)

    assert client.ask(app, "POST", "/compose") == 400
    assert client.taken < 20


def test_nothing_takes_for_ever(app, monkeypatch):
    monkeypatch.setattr(request_bodies, "TOTAL_SECONDS", 0.1)
    client = Client(*[b"x" * 10_000] * 100, pause=0.02)

    assert client.ask(app, "POST", "/compose") == 400


def test_other_protocols_pass():
    started: list[str] = []

    async def lifespan(scope: Message, receive: Any, send: Any) -> None:
        started.append(scope["type"])

    guarded: Any = guard_bodies(lifespan, page)
    asyncio.run(guarded({"type": "lifespan"}, Client().receive, Client().send))
    assert started == ["lifespan"]


def test_files_are_left_for_the_view():
    found: list[bytes] = []

    async def app(scope: Message, receive: Any, send: Any) -> None:
        assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
        reader: BodyReader = scope["marketplace.body"]
        while chunk := await reader.read_some():
            found.append(chunk)

    Client(b"ab", b"cd").ask(guard_bodies(app, page), "PUT", FILE)

    assert found == [b"abcd"]


@pytest.mark.parametrize(("ends", "error"), [("gone", ClientGone), ("never", ClientTooSlow)])
def test_a_view_learns_that_the_client_stopped(ends, error, monkeypatch):
    monkeypatch.setattr(request_bodies, "IDLE_SECONDS", 0.05)
    reader = BodyReader(Client(b"ab", ends=ends).receive)

    async def read_twice() -> bytes:
        first = await reader.read_some()
        with pytest.raises(error):
            await reader.read_some()
        return first

    assert asyncio.run(read_twice()) == b"ab"


def test_the_server_is_asked_in_the_context_of_the_request():
    """What a server registers while it is asked must not keep the context of a view's thread."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("where", default="request")
    seen: list[str] = []

    async def receive() -> Message:
        seen.append(variable.get())
        return {"type": "http.request", "body": b"x", "more_body": False}

    async def ask_as_a_view_does() -> None:
        reader = BodyReader(receive)
        variable.set("view")
        assert await reader.read_some() == b"x"

    asyncio.run(ask_as_a_view_does())
    assert seen == ["request"]


def test_without_the_guard_the_request_itself_is_read():
    request = RequestFactory().put(FILE, b"abc", "application/octet-stream")

    assert list(read_chunks(request)) == [b"abc"]


# ---- the whole site -----------------------------------------------------------------------------


@pytest.fixture
def upload(transactional_db):
    return create_upload(make_user("streamer"))


@pytest.fixture
def headers(upload) -> dict[str, str]:
    until = timezone.now() + timedelta(days=1)
    text = ApiToken.issue(user=upload.owner, name="a", scope="write", expires_at=until)[1]
    return {"authorization": f"Bearer {text}", "content_type": "application/octet-stream"}


def test_a_file_streams_through_the_site(upload, headers):
    client = Client(*[b"x" * 1000] * 300)
    path = f"/api/v1/uploads/{upload.pk}/files/a.txt"

    assert client.ask(application, "PUT", path, **headers) == 200
    assert (quarantine.folder_of(upload.pk) / "a.txt").stat().st_size == 300_000


def test_a_file_too_large_is_cut_while_it_streams(upload, headers):
    client = Client(*[b"x" * 10_000] * 1000)
    path = f"/api/v1/uploads/{upload.pk}/files/a.txt"

    assert client.ask(application, "PUT", path, **headers) == 413
    assert (b"connection", b"close") in client.sent[0]["headers"]
    # The limit of small files is 512 KiB; the rest of 10 MB is never asked for.
    assert client.taken < 100
    assert not UploadedFile.objects.exists()


def test_a_browser_that_sends_too_much_can_read_the_reason(upload, headers):
    client = Client(*[b"x" * 10_000] * 100)
    path = f"/api/v1/uploads/{upload.pk}/files/a.txt"

    assert client.ask(application, "PUT", path, content_length="1000000", **headers) == 413
    assert (b"connection", b"close") not in client.sent[0]["headers"]
    assert b"at most 524,288 are allowed" in client.body


def test_nobody_streams_without_signing_in(upload):
    client = Client(b"x")

    assert client.ask(application, "PUT", f"/api/v1/uploads/{upload.pk}/files/a.txt") == 401
    assert client.taken == 0


def test_a_stream_that_breaks_off_can_go_on(upload, headers):
    client = Client(b"x" * 10, ends="gone")
    path = f"/api/v1/uploads/{upload.pk}/files/a.txt"

    client.ask(application, "PUT", path, content_length="20", **headers)

    row = UploadedFile.objects.get()
    assert (row.received, row.complete) == (10, False)


def test_the_site_refuses_with_a_page_and_with_json(db):
    large = str(django_settings.MAX_UPLOAD_BYTES * 2)
    as_page, as_json = Client(), Client()

    assert as_page.ask(application, "POST", "/upload", content_length=large) == 413
    assert b"larger than the site accepts" in as_page.body
    assert as_json.ask(application, "POST", "/api/v1/jobs", content_length=large) == 413
    assert b'"detail"' in as_json.body or b'"error"' in as_json.body
