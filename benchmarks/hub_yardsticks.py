"""What the hub stands beside: a bare ASGI application, a bare Django view, a static server.

Each is served by uvicorn as the site is: `uvicorn benchmarks.hub_yardsticks:bare_asgi` and so on.
None of them looks anything up; the static server sends one file, named by STATIC_FILE, in pieces of
a mebibyte that are read in a thread, as servers of this kind do.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import re_path

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
PIECE = 1024 * 1024
HEADERS = {
    "ETag": '"0"',
    "X-Repo-Commit": "0" * 40,
    "Content-Length": "0",
    "Content-Type": "application/octet-stream",
}

if not settings.configured:
    settings.configure(
        ROOT_URLCONF=__name__, SECRET_KEY=secrets.token_hex(), ALLOWED_HOSTS=["*"], MIDDLEWARE=[]
    )


def view(request: HttpRequest) -> HttpResponse:
    """Answer with the headers of a file and nothing else."""
    return HttpResponse(headers=HEADERS)


urlpatterns = [re_path(r".*", view)]
bare_django = get_asgi_application()


async def bare_asgi(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Answer with the headers of a file and nothing else."""
    headers = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def static(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Send the file."""
    path = Path(os.environ["STATIC_FILE"])
    headers = [(b"content-length", str(path.stat().st_size).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, PIECE):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
