"""Put content into the storage and read it back; a row comes only after its object is complete.

On a local disk an object is written under a temporary name beside its place, synced, and renamed to
its hash: a crash leaves either nothing or the whole. Storing the same content twice is one object.
Store outside of transactions: an uncommitted row makes others with the same content wait.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

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
        sha256: the hash it must have; the content is hashed on the way in, whatever is told here.
        git_sha1: checked likewise.
        size: checked likewise.

    Raises:
        StorageFull: there is no room; nothing was kept.
        DamagedBlob: the content is not the one that was promised; nothing was kept.
    """
    found = hash_file(path)
    promised = ((sha256, found.sha256), (git_sha1, found.git_sha1), (size, found.size))
    if any(told is not None and told != seen for told, seen in promised):
        raise DamagedBlob(sha256 or found.sha256)
    return _store(found, lambda: path.open("rb"))


def store_bytes(data: bytes) -> Blob:
    """Store small content and return its Blob. Raises StorageFull."""
    return _store(hash_bytes(data), lambda: io.BytesIO(data))


def open_blob(blob: Blob) -> IO[bytes]:
    """Open the content for reading. Raises DamagedBlob where it is missing."""
    try:
        return default_storage.open(blob.storage_name, "rb")
    except FileNotFoundError:
        raise DamagedBlob(blob.sha256) from None


def read_blob(blob: Blob, *, limit: int = 8 * 1024 * 1024) -> bytes:
    """Return small content whole, at most `limit` bytes of it. Raises DamagedBlob."""
    with open_blob(blob) as file:
        return file.read(limit)


def copy_blob(blob: Blob, target: Path) -> None:
    """Write the content to a file of its own, checking its hash on the way.

    Raises:
        DamagedBlob: the stored bytes are missing or not those that were stored.
        StorageFull: there is no room for the copy; nothing is left of it.
    """
    hasher = Hasher()
    try:
        with open_blob(blob) as source, _room(), target.open("wb") as file:
            while chunk := source.read(READ_BYTES):
                hasher.update(chunk)
                file.write(chunk)
        if hasher.sha256 != blob.sha256:
            raise DamagedBlob(blob.sha256)
    except BaseException:
        target.unlink(missing_ok=True)  # half a copy helps nobody
        raise


def local_path(blob: Blob) -> Path | None:
    """Return where the content lies on this machine's disk, or None for an object storage."""
    if isinstance(default_storage, FileSystemStorage):  # also true of the lazy object around one
        return Path(default_storage.path(blob.storage_name))
    return None


def signed_url(blob: Blob) -> str | None:
    """Return a short-lived address at an object storage that signs them, else None.

    An address without a query holds no signature: the storage is then no way around our access
    rules, and the site sends the bytes itself.
    """
    if isinstance(default_storage, FileSystemStorage):
        return None
    try:
        url = default_storage.url(blob.storage_name)
    except NotImplementedError:
        return None
    return url if url.startswith(("https://", "http://")) and "?" in url else None


def _store(found: Hasher, open_source: Callable[[], IO[bytes]]) -> Blob:
    blob = Blob(sha256=found.sha256, git_sha1=found.git_sha1 or "", size=found.size)
    # Touched first: whoever collects unused blobs waits for this or sees that it is wanted again.
    Blob.objects.filter(pk=blob.pk).update(created_at=timezone.now())
    path = local_path(blob)
    if path is None:
        _save_remotely(blob, open_source)
    elif not _reuse(path, blob.size):
        _write_safely(path, blob, open_source)
    kept, _ = Blob.objects.get_or_create(
        sha256=blob.sha256, defaults={"git_sha1": blob.git_sha1, "size": blob.size}
    )
    return kept


def _reuse(path: Path, size: int) -> bool:
    """Tell whether the object lies there already, and make it young if so (see `checking`)."""
    try:
        if path.stat().st_size != size:
            return False
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _write_safely(path: Path, blob: Blob, open_source: Callable[[], IO[bytes]]) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    hasher = Hasher()
    try:
        with _room():
            _make_folder(path.parent)
            with open_source() as source, temporary.open("xb") as file:
                while chunk := source.read(READ_BYTES):
                    hasher.update(chunk)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            if hasher.sha256 != blob.sha256:  # the source changed since it was hashed
                raise DamagedBlob(blob.sha256)
            temporary.chmod(0o644)
            temporary.replace(path)
            _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _save_remotely(blob: Blob, open_source: Callable[[], IO[bytes]]) -> None:
    """Save to an object storage, where a save is whole or not at all."""
    if default_storage.exists(blob.storage_name):
        return
    with _room(), open_source() as source:
        name = default_storage.save(blob.storage_name, File(source))
    if name != blob.storage_name:  # another request saved the same content a moment before
        default_storage.delete(name)


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot sync a folder
            os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _room() -> Iterator[None]:
    """Turn the operating system's 'no space' into the error that users read."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            raise StorageFull from error
        raise
