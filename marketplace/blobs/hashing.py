"""Hash content while it streams past: sha256 for addresses, git's sha1 for hub clients."""

from __future__ import annotations

import hashlib
from pathlib import Path

READ_BYTES = 1024 * 1024


class Hasher:
    """Hashes and counts bytes; git's sha1 covers the size, so it is known only where that is."""

    def __init__(self, *, size: int | None = None) -> None:
        self.size = 0
        self._sha256 = hashlib.sha256()
        self._git = None if size is None else _begin_git_sha1(size)

    def update(self, chunk: bytes | memoryview) -> None:
        """Take the next bytes."""
        self.size += len(chunk)
        self._sha256.update(chunk)
        if self._git is not None:
            self._git.update(chunk)

    @property
    def sha256(self) -> str:
        """Hex digest of everything so far."""
        return self._sha256.hexdigest()

    @property
    def git_sha1(self) -> str | None:
        """Git's blob id, or None where the size was not told beforehand."""
        return None if self._git is None else self._git.hexdigest()


def hash_file(path: Path) -> Hasher:
    """Hash a whole file, reading it once and never holding more than 1 MiB."""
    hasher = Hasher(size=path.stat().st_size)
    with path.open("rb") as file:
        while chunk := file.read(READ_BYTES):
            hasher.update(chunk)
    return hasher


def hash_bytes(data: bytes) -> Hasher:
    """Hash content that is small enough to be in memory."""
    hasher = Hasher(size=len(data))
    hasher.update(data)
    return hasher


def _begin_git_sha1(size: int) -> hashlib._Hash:
    digest = hashlib.sha1(usedforsecurity=False)
    digest.update(b"blob %d\0" % size)
    return digest
