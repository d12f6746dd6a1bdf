"""What part of a file a request asks for: Range, If-Range and the preconditions of RFC 9110.

Pure functions over header texts, so that every odd case is a line in a test.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_RANGE = re.compile(r"bytes=([0-9]{0,20})-([0-9]{0,20})\Z")


@dataclass(frozen=True)
class Part:
    """The bytes from `start` up to `end`, `end` not included."""

    start: int
    end: int

    @property
    def length(self) -> int:
        """How many bytes."""
        return self.end - self.start


class UnsatisfiableRange(Exception):
    """The range lies outside the file: status 416."""


def read_range(headers: Mapping[str, str], *, size: int, etag: str) -> Part | None:
    """Return the part asked for, or None for the whole file.

    A malformed header, several ranges at once, or an If-Range that names another version ask for
    the whole file, as RFC 9110 allows.

    Raises:
        UnsatisfiableRange: the range begins past the end of the file.
    """
    if_range = headers.get("If-Range")
    if if_range is not None and if_range.strip() != etag:
        return None
    match = _RANGE.match(headers.get("Range", "").strip().lower())
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        return _suffix(int(last), size)
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size:
        raise UnsatisfiableRange
    return Part(start, min(int(last) + 1, size) if last else size)


def is_unmodified(headers: Mapping[str, str], *, etag: str) -> bool:
    """Tell whether If-None-Match says that the client has this content: status 304."""
    return _names(headers.get("If-None-Match"), etag, weak=True)


def fails_if_match(headers: Mapping[str, str], *, etag: str) -> bool:
    """Tell whether If-Match asks for another content than there is: status 412."""
    wanted = headers.get("If-Match")
    return wanted is not None and not _names(wanted, etag, weak=False)


def _suffix(length: int, size: int) -> Part:
    if length == 0 or size == 0:
        raise UnsatisfiableRange
    return Part(max(0, size - length), size)


def _names(header: str | None, etag: str, *, weak: bool) -> bool:
    if header is None:
        return False
    if header.strip() == "*":
        return True
    tags = {tag.strip() for tag in header.split(",")}
    return etag in tags or (weak and f"W/{etag}" in tags)
