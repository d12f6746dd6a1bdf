"""Compare the rows with what lies in the storage: nothing missing, damaged or left over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from django.core.files.storage import default_storage
from django.utils import timezone

from marketplace.blobs.hashing import READ_BYTES, Hasher
from marketplace.blobs.models import Blob
from marketplace.blobs.services import DamagedBlob, open_blob

GRACE = timedelta(hours=24)  # an object without a row may belong to a request that still runs


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: `missing`, `damaged` or `orphan`, and the object's name."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.name}"


def check_storage(*, on_blob: Callable[[], None] = lambda: None) -> Iterator[Finding]:
    """Read every stored object once and yield what is wrong; `on_blob` is called for each row."""
    for blob in Blob.objects.order_by("pk").iterator(chunk_size=500):
        on_blob()
        try:
            if not _is_whole(blob):
                yield Finding("damaged", blob.storage_name)
        except DamagedBlob:
            yield Finding("missing", blob.storage_name)
    yield from find_orphans()


def find_orphans() -> Iterator[Finding]:
    """Yield stored objects, older than a day, that no row speaks of."""
    for name in _walk(""):
        if _is_orphan(name):
            yield Finding("orphan", name)


def remove_orphan(finding: Finding) -> bool:
    """Remove what no row speaks of, unless it was taken into use since it was found."""
    if not _is_orphan(finding.name):
        return False
    default_storage.delete(finding.name)
    return True


def _is_whole(blob: Blob) -> bool:
    hasher = Hasher()
    with open_blob(blob) as file:
        while chunk := file.read(READ_BYTES):
            hasher.update(chunk)
    return hasher.sha256 == blob.sha256 and hasher.size == blob.size


def _is_orphan(name: str) -> bool:
    return _is_old(name) and not Blob.objects.filter(pk=Path(name).name).exists()


def _is_old(name: str) -> bool:
    # `services` makes an object young when it takes one into use that lay there already.
    try:
        return default_storage.get_modified_time(name) < timezone.now() - GRACE
    except FileNotFoundError:  # a temporary file that was renamed since it was listed
        return False


def _walk(folder: str) -> Iterator[str]:
    try:
        folders, files = default_storage.listdir(folder)
    except FileNotFoundError:
        return
    prefix = f"{folder}/" if folder else ""
    yield from (f"{prefix}{name}" for name in sorted(files))
    for name in sorted(folders):
        yield from _walk(f"{prefix}{name}")
