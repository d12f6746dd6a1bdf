"""Send several blobs as one zip file, streamed, with its exact length known beforehand.

Files are stored, not compressed (weights do not compress), so the layout is computed from names
and sizes alone. Checksums come after each file's bytes, in data descriptors: only then known.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse

from marketplace.blobs.hashing import READ_BYTES, Hasher
from marketplace.blobs.models import Blob
from marketplace.blobs.responses import SAFE_HEADERS, content_disposition, in_threads
from marketplace.blobs.services import DamagedBlob, open_blob

_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_DESCRIPTOR = struct.Struct("<4sIII")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_FLAGS = 0x0808  # checksum in a descriptor, names in UTF-8
_VERSION = 20
_DATE = (2020 - 1980) << 9 | 1 << 5 | 1  # the same archive for the same files, whenever it is made
_MAX_ZIP = 4 * 1024**3 - 1  # beyond it the format changes; an adapter is far below


@dataclass(frozen=True)
class ZipEntry:
    """A file of the archive: its path and its content."""

    path: str
    blob: Blob


def zip_response(
    request: HttpRequest, entries: Sequence[ZipEntry], *, filename: str
) -> HttpResponseBase:
    """Answer GET or HEAD with a zip of the entries.

    Raises:
        ValueError: the archive would pass 4 GiB.
    """
    length = zip_length(entries)
    if length > _MAX_ZIP:
        raise ValueError("These files are too large for one zip; download them one by one.")
    response: HttpResponseBase
    if request.method == "HEAD":
        response = HttpResponse()
    elif hasattr(request, "scope"):
        response = StreamingHttpResponse(in_threads(zip_chunks(entries)))
    else:
        response = StreamingHttpResponse(zip_chunks(entries))
    response["Content-Type"] = "application/zip"
    response["Content-Length"] = str(length)
    response["Content-Disposition"] = content_disposition(filename)
    for name, value in SAFE_HEADERS.items():
        response[name] = value
    return response


def zip_length(entries: Sequence[ZipEntry]) -> int:
    """Return how many bytes `zip_chunks` yields."""
    fixed = _LOCAL.size + _DESCRIPTOR.size + _CENTRAL.size
    return _END.size + sum(
        fixed + 2 * len(entry.path.encode()) + entry.blob.size for entry in entries
    )


def zip_chunks(entries: Sequence[ZipEntry]) -> Iterator[bytes]:
    """Yield the archive piece by piece, never holding more than 1 MiB of content.

    Raises:
        DamagedBlob: a file is missing, or its stored bytes changed.
    """
    directory = bytearray()
    offset = 0
    for entry in entries:
        name = entry.path.encode()
        head = _LOCAL.pack(b"PK\x03\x04", _VERSION, _FLAGS, 0, 0, _DATE, 0, 0, 0, len(name), 0)
        yield head + name
        checksum, hasher = 0, Hasher()
        with open_blob(entry.blob) as file:
            while chunk := file.read(READ_BYTES):
                checksum = zlib.crc32(chunk, checksum)
                hasher.update(chunk)
                yield chunk
        if hasher.sha256 != entry.blob.sha256:
            raise DamagedBlob(entry.blob.sha256)  # the archive ends here: no tool opens it
        size = entry.blob.size
        yield _DESCRIPTOR.pack(b"PK\x07\x08", checksum, size, size)
        directory += _CENTRAL.pack(
            *(b"PK\x01\x02", 3 << 8 | _VERSION, _VERSION, _FLAGS, 0, 0, _DATE, checksum),
            *(size, size, len(name), 0, 0, 0, 0, 0o100644 << 16, offset),
        )
        directory += name
        offset += len(head) + len(name) + size + _DESCRIPTOR.size
    count = len(entries)
    end = _END.pack(b"PK\x05\x06", 0, 0, count, count, len(directory), offset, 0)
    yield bytes(directory) + end
