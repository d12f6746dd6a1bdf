"""Read the body of a commit: one JSON object a line, in the order they are to be applied.

A line holds a small file whole, so lines are bounded, and each file goes to the storage before the
next line is read: a commit of many files never lies in memory. What a commit makes of a tree is in
`committing`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from composer.strict_json import JSONError, parse_json
from marketplace.accounts.models import User
from marketplace.blobs.models import Blob
from marketplace.blobs.services import store_bytes
from marketplace.hub.addresses import check_path, is_storable
from marketplace.hub.errors import BadRequest
from marketplace.hub.lfs_rule import LARGE_BYTES
from marketplace.hub.services.objects import find_object

MAX_LINE = LARGE_BYTES * 4 // 3 + 64 * 1024
MAX_OPERATIONS = 2000
MAX_MESSAGE = 64 * 1024


@dataclass(frozen=True)
class Put:
    """Put a content under a path, new or in place of another."""

    path: str
    blob: Blob


@dataclass(frozen=True)
class DeleteFile:
    """Take one file away."""

    path: str


@dataclass(frozen=True)
class DeleteFolder:
    """Take away everything below a path."""

    path: str


Operation = Put | DeleteFile | DeleteFolder


@dataclass(frozen=True)
class Commit:
    """What a client wants done to a branch, and what it believes the head to be."""

    title: str
    message: str
    parent: str
    operations: tuple[Operation, ...]


def read_commit(chunks: Iterable[bytes], user: User, *, room: int) -> Commit:
    """Read a commit and store the files in it; `room` is how many bytes of these are allowed.

    Raises:
        BadRequest: it is no commit, is too large, or names a content the user never sent.
    """
    lines = _read_lines(chunks)
    header = next(lines, None)
    if header is None or header[0] != "header":
        raise BadRequest("The first line of a commit has to be its header.")
    operations: list[Operation] = []
    for key, value in lines:
        if len(operations) >= MAX_OPERATIONS:
            raise BadRequest(f"A commit has at most {MAX_OPERATIONS} operations. Make several.")
        operation = _read_operation(key, value, user, room)
        if isinstance(operation, Put) and key == "file":
            room -= operation.blob.size
        operations.append(operation)
    return Commit(
        title=_clean(header[1].get("summary")) or "Update",
        message=_clean(header[1].get("description")),
        parent=_clean(header[1].get("parentCommit")).strip().lower(),
        operations=tuple(operations),
    )


def _read_lines(chunks: Iterable[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(_split(chunks), start=1):
        if not line.strip():
            continue
        try:
            entry = parse_json(line)
        except JSONError as error:
            raise BadRequest(f"Line {number} of the commit is not valid JSON: {error}.") from None
        match entry:
            case {"key": str(key), "value": dict(value)}:
                yield key, value
            case _:
                raise BadRequest(f'Line {number} of the commit needs a "key" and a "value".')


def _split(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield whole lines; never keep more than the longest line and one chunk."""
    rest = bytearray()
    for chunk in chunks:
        searched = len(rest)
        rest += chunk
        start = 0
        while (end := rest.find(b"\n", max(start, searched))) >= 0:
            yield bytes(rest[start:end])
            start = end + 1
        del rest[:start]
        if len(rest) > MAX_LINE:
            raise BadRequest(
                f"A line of the commit has more than {MAX_LINE} bytes. Files above "
                f"{LARGE_BYTES} bytes are sent as large files, as preupload says."
            )
    if rest:
        yield bytes(rest)


def _read_operation(key: str, value: dict[str, Any], user: User, room: int) -> Operation:
    read = _READERS.get(key)
    if read is None:
        raise BadRequest(f"{key[:40]!r} is no operation of a commit that this site knows.")
    path = value.get("path")
    if not isinstance(path, str):
        raise BadRequest(f"An operation {key!r} of the commit has no path.")
    return read(path, value, user, room)


def _read_file(path: str, value: dict[str, Any], user: User, room: int) -> Operation:
    path = check_path(path)
    content = value.get("content")
    encoding = value.get("encoding", "base64")
    if not isinstance(content, str) or encoding not in {"base64", "utf-8"}:
        raise BadRequest(f"The content of {path} has to be a text in base64.")
    try:
        data = (
            base64.b64decode(content, validate=True) if encoding == "base64" else (content.encode())
        )
    except (binascii.Error, ValueError):
        raise BadRequest(f"The content of {path} is no valid base64.") from None
    if len(data) > LARGE_BYTES:
        raise BadRequest(f"{path} has {len(data)} bytes; send it as a large file.")
    if len(data) > room:
        raise BadRequest(f"{path} does not fit into your space any more. Delete an adapter first.")
    return Put(path, store_bytes(data))


def _read_large_file(path: str, value: dict[str, Any], user: User, room: int) -> Operation:
    path = check_path(path)
    oid, size = value.get("oid"), value.get("size")
    blob = find_object(user, oid) if value.get("algo", "sha256") == "sha256" else None
    if blob is None:
        raise BadRequest(
            f"The content of {path} is not here: send it before the commit that names it."
        )
    if size is not None and size != blob.size:
        raise BadRequest(f"{path} has {blob.size} bytes here, not {size!r:.40}.")
    return Put(path, blob)


def _read_deleted_file(path: str, value: dict[str, Any], user: User, room: int) -> Operation:
    return DeleteFile(check_path(path))


def _read_deleted_folder(path: str, value: dict[str, Any], user: User, room: int) -> Operation:
    return DeleteFolder(check_path(path.rstrip("/")))


_READERS: dict[str, Callable[[str, dict[str, Any], User, int], Operation]] = {
    "file": _read_file,
    "lfsFile": _read_large_file,
    "deletedFile": _read_deleted_file,
    "deletedFolder": _read_deleted_folder,
}


def _clean(text: object) -> str:
    """Return a text the database can hold."""
    if not isinstance(text, str):
        return ""
    text = text[:MAX_MESSAGE]
    return text if is_storable(text) else "".join(filter(is_storable, text))
