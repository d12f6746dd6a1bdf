"""Send stored content to a client: whole or in part, resumable, in bounded memory.

Django's own FileResponse reads a whole file into memory under ASGI and ignores Range, hence this.
User content always leaves as an attachment that no browser runs. Access was decided by the caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import IO
from urllib.parse import quote

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse

from marketplace.blobs.hashing import READ_BYTES, Hasher
from marketplace.blobs.models import Blob
from marketplace.blobs.ranges import (
    Part,
    UnsatisfiableRange,
    fails_if_match,
    is_unmodified,
    read_range,
)
from marketplace.blobs.services import DamagedBlob, local_path, open_blob
from marketplace.blobs.soundness import identify, is_sound, remember_sound

SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def blob_response(
    request: HttpRequest,
    blob: Blob,
    *,
    filename: str,
    etag: str | None = None,
    disposition: str = "attachment",
    headers: Mapping[str, str] | None = None,
) -> HttpResponseBase:
    """Answer GET or HEAD with the blob's content, or the part of it that was asked for.

    Args:
        request: its Range, If-Range, If-None-Match and If-Match are honoured.
        blob: the content.
        filename: what the client should call it; may hold any characters.
        etag: without quotes; the sha256 unless told otherwise.
        disposition: `attachment` or `inline`.
        headers: set on every answer, errors included.

    Raises:
        DamagedBlob: the content is missing from the storage.
    """
    tag = f'"{etag or blob.sha256}"'
    response = _answer(request, blob, tag)
    response["ETag"] = tag
    response["Accept-Ranges"] = "bytes"
    response["Content-Type"] = "application/octet-stream"
    response["Content-Disposition"] = content_disposition(filename, disposition)
    for name, value in {**SAFE_HEADERS, **(headers or {})}.items():
        response[name] = value
    return response


def content_disposition(filename: str, disposition: str = "attachment") -> str:
    """Return the header for any file name, as RFC 6266 says: an ASCII one and the real one."""
    plain = "".join(c if " " <= c <= "~" and c not in '"\\/;%' else "_" for c in filename)
    header = f'{disposition}; filename="{plain}"'
    if plain != filename:
        header += f"; filename*=UTF-8''{quote(filename, safe='', errors='replace')}"
    return f"{header};"  # the hub clients' pattern wants the last semicolon


def _answer(request: HttpRequest, blob: Blob, tag: str) -> HttpResponseBase:
    if fails_if_match(request.headers, etag=tag):
        return HttpResponse(status=412)
    if is_unmodified(request.headers, etag=tag):
        return HttpResponse(status=304)
    if request.method != "GET":  # RFC 9110 defines ranges for GET alone
        return _content(request, blob, None)
    try:
        part = read_range(request.headers, size=blob.size, etag=tag)
    except UnsatisfiableRange:
        response = HttpResponse(status=416)
        response["Content-Range"] = f"bytes */{blob.size}"
        return response
    return _content(request, blob, part)


def _content(request: HttpRequest, blob: Blob, part: Part | None) -> HttpResponseBase:
    whole = Part(0, blob.size)
    response: HttpResponseBase
    if request.method == "HEAD":
        response = HttpResponse()
    elif settings.X_ACCEL_REDIRECT and local_path(blob) is not None:
        # The proxy in front sends the bytes and does the range itself (docs/settings.md).
        response = HttpResponse()
        response["X-Accel-Redirect"] = f"{settings.X_ACCEL_REDIRECT}{blob.storage_name}"
        return response
    else:
        response = _stream(request, blob, part or whole)
    response["Content-Length"] = str((part or whole).length)
    if part is not None:
        response.status_code = 206
        response["Content-Range"] = f"bytes {part.start}-{part.end - 1}/{blob.size}"
    return response


def _stream(request: HttpRequest, blob: Blob, part: Part) -> StreamingHttpResponse:
    file = open_blob(blob)
    file.seek(part.start)
    chunks = _read(file, blob, part)
    response = StreamingHttpResponse(
        in_threads(chunks) if hasattr(request, "scope") else chunks  # ASGI or WSGI
    )
    # A client that leaves before the first byte never starts the generator: close its file too.
    response._resource_closers.append(file.close)  # type: ignore[attr-defined]
    return response


async def in_threads(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Draw from a blocking iterator in threads, so that the event loop stays free.

    The next piece is drawn while the one before it is being sent.
    """
    following = asyncio.create_task(asyncio.to_thread(next, chunks, b""))
    try:
        while chunk := await following:
            following = asyncio.create_task(asyncio.to_thread(next, chunks, b""))
            yield chunk
    finally:
        # The client may have left: the thread still reads, and the file is closed after it.
        if not following.done():
            await asyncio.wait({following})


def _read(file: IO[bytes], blob: Blob, part: Part) -> Iterator[bytes]:
    """Yield the part; of a whole file the last piece only when the hash of all was right.

    A file that this process found right within the hour is not hashed again, see `soundness`.

    Raises:
        DamagedBlob: the stored bytes changed. The client sees a body that is too short.
    """
    rest = part.length
    with file:
        identity = identify(file, blob.sha256)
        is_hashed = part.length == blob.size and not is_sound(identity)
        hasher = Hasher()
        while rest:
            chunk = file.read(min(READ_BYTES, rest))
            rest -= len(chunk)
            if is_hashed:
                hasher.update(chunk)
            is_wrong = is_hashed and not rest and hasher.sha256 != blob.sha256
            if not chunk or is_wrong:
                raise DamagedBlob(blob.sha256)
            if is_hashed and not rest:
                remember_sound(identity)
            yield chunk
