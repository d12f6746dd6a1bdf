"""Put content into the storage and read it back; a row comes only after its object is complete.

On a local disk an object is written under a temporary name beside its place, synced, and renamed to
its hash: a crash leaves either nothing or the whole. Storing the same content twice is one object.
"""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from django.core.files import File
from django.core.files.storage import FileSystemStorage, default_storage
from django.utils import timezone

from marketplace.blobs.hashing import READ_BYTES, Hasher, hash_bytes, hash_file
from marketplace.blobs.models import Blob

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class BlobError(Exception):
    """Content could not be stored or read."""


class StorageFull(BlobError):
    """The disk or bucket has no room; nothing was kept of what was being stored."""

    def __init__(self) -> None:
        super().__init__(
            "The storage is full, so the file was not kept. Try again later; "
            "the administrator has to make room."
        )


class DamagedBlob(BlobError):
    """The stored bytes are missing or not those that were stored."""

    def __init__(self, sha256: str) -> None:
        super().__init__(
            f"The stored file {sha256[:12]}… is missing or damaged. The administrator can find it "
            "with manage.py verify_storage and restore it from a backup."
        )


def store_file(
    path: Path, *, sha256: str | None = None, git_sha1: str | None = None, size: int | None = None
) -> Blob:
    """Store a file's content and return its Blob; the file itself stays where it is.

    Args:
        path: the file to take the content from.
        sha256: the hash it must have; what is stored is hashed again on the way in.
        git_sha1: checked likewise.
        size: checked likewise.

    Raises:
        StorageFull: there is no room; nothing was kept.
        DamagedBlob: the content is not the one that was promised.
    """
    found = hash_file(path)
    promised = {(sha256, found.sha256), (git_sha1, found.git_sha1), (size, found.size)}
    if any(told is not None and told != seen for told, seen in promised):
        raise DamagedBlob(sha256 or found.sha256)

    def write(target: IO[bytes]) -> None:
        with path.open("rb") as source:
            while chunk := source.read(READ_BYTES):
                target.write(chunk)

    return _store(found, write, lambda: File(path.open("rb")))


def store_bytes(data: bytes) -> Blob:
    """Store small content and return its Blob. Raises StorageFull."""

    def write(target: IO[bytes]) -> None:
        target.write(data)

    def as_file() -> Any:
        from django.core.files.base import ContentFile  # noqa: PLC0415 (only for object storages)

        return ContentFile(data)

    return _store(hash_bytes(data), write, as_file)


def open_blob(blob: Blob) -> IO[bytes]:
    """Open the content for reading. Raises DamagedBlob where it is missing."""
    try:
        return default_storage.open(blob.storage_name, "rb")  # type: ignore[return-value]
    except FileNotFoundError:
        raise DamagedBlob(blob.sha256) from None


def read_blob(blob: Blob, *, limit: int = 8 * 1024 * 1024) -> bytes:
    """Return small content whole, at most `limit` bytes of it. Raises DamagedBlob."""
    with open_blob(blob) as file:
        return file.read(limit)


def copy_blob(blob: Blob, target: Path) -> None:
    """Write the content to a file of its own, checking its hash on the way. Raises DamagedBlob."""
    hasher = Hasher()
    with open_blob(blob) as source, _room(), target.open("wb") as file:
        while chunk := source.read(READ_BYTES):
            hasher.update(chunk)
            file.write(chunk)
    if hasher.sha256 != blob.sha256:
        target.unlink()
        raise DamagedBlob(blob.sha256)


def local_path(blob: Blob) -> Path | None:
    """Return where the content lies on this machine's disk, or None for an object storage."""
    if isinstance(default_storage._wrapped, FileSystemStorage):  # type: ignore[attr-defined]
        return Path(default_storage.path(blob.storage_name))
    return None


def _store(found: Hasher, write: Callable[[IO[bytes]], None], as_file: Callable[[], Any]) -> Blob:
    blob = Blob(sha256=found.sha256, git_sha1=found.git_sha1 or "", size=found.size)
    # Touched first: whoever collects unused blobs waits for this or sees that it is wanted again.
    Blob.objects.filter(pk=blob.pk).update(created_at=timezone.now())
    path = local_path(blob)
    if path is not None:
        if not _is_stored(path, blob.size):
            _write_safely(path, write)
    elif not default_storage.exists(blob.storage_name):
        with _room(), as_file() as file:
            default_storage.save(blob.storage_name, file)
    kept, _ = Blob.objects.get_or_create(
        sha256=blob.sha256, defaults={"git_sha1": blob.git_sha1, "size": blob.size}
    )
    return kept


def _is_stored(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False


def _write_safely(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with _room():
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
            _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot sync a folder
            os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _room() -> Any:
    """Turn the operating system's 'no space' into the error that users read."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            raise StorageFull from error
        raise
