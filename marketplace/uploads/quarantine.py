"""Where received files lie until they are accepted: outside the storage, served to nobody.

A draft has one folder, named by its id; file names in it are checked, never a user's path. What is
still arriving lies in a folder below and is moved beside the complete files at its end.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from uuid import UUID

from django.conf import settings

from marketplace.blobs.hashing import READ_BYTES, Hasher
from marketplace.uploads.errors import Busy, NoRoom, TooLarge, UploadError

CONFIG, WEIGHTS, PICKLE, CARD = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
    "README.md",
)
SMALL_BYTES = 512 * 1024
_SMALL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}\.(json|md|txt|jsonl|yaml|yml|jinja)\Z")
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_ARRIVING = "arriving"


def folder_of(draft: UUID) -> Path:
    """Return the draft's folder."""
    return Path(settings.QUARANTINE_DIR) / str(draft)


def check_name(path: str) -> str:
    """Return the name of a file that may be part of an adapter, without the folder it came in.

    Raises:
        UploadError: naming what may be uploaded.
    """
    name = path.replace("\\", "/").rpartition("/")[2]
    if name in {WEIGHTS, PICKLE} or (_SMALL.match(name) and ".." not in name):
        return name
    raise UploadError(
        f"“{name[:60]}” is not part of a LoRA adapter. Upload {CONFIG}, {WEIGHTS} "
        f"(or {PICKLE}), and small text files such as {CARD}.",
        field="files",
    )


def limit_of(name: str) -> int:
    """Return how many bytes a file of this name may have."""
    return int(settings.MAX_WEIGHTS_BYTES) if name in {WEIGHTS, PICKLE} else SMALL_BYTES


@contextlib.contextmanager
def only_writer(draft: UUID, name: str) -> Iterator[None]:
    """Be the only request of any process that writes this file, until it ends or dies.

    Raises:
        Busy: another request is sending the file.
        NoRoom: the disk is full.
    """
    place = folder_of(draft) / _ARRIVING / f"{name}.lock"
    with _room():
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = place.open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(
                f"Another request is sending {name}. Wait until it ends, then go on."
            ) from None
        yield


def begin(draft: UUID, name: str, *, offset: int) -> Hasher:
    """Prepare for the bytes from `offset` on, and return the hash of those that are there.

    Raises:
        UploadError: `offset` is neither 0, which begins anew, nor where the file ends.
    """
    part = _part(draft, name)
    have = part.stat().st_size if part.exists() else 0
    if offset not in {0, have}:
        raise UploadError(
            f"{name} has {have} bytes here. Go on at offset {have}, or begin at 0.", field="files"
        )
    (folder_of(draft) / name).unlink(missing_ok=True)
    hasher = Hasher()
    if offset == 0:
        part.unlink(missing_ok=True)
        return hasher
    with part.open("rb") as file:
        while chunk := file.read(READ_BYTES):
            hasher.update(chunk)
    return hasher


def append(draft: UUID, name: str, chunks: Iterable[bytes], *, hasher: Hasher, room: int) -> None:
    """Append chunks to what `begin` prepared, checking the limit at every one.

    What arrived before the chunks broke off is kept, so that the client can go on from there.

    Raises:
        TooLarge: the limit was passed; nothing is kept.
        NoRoom: the disk is full; nothing is kept.
    """
    part = _part(draft, name)
    try:
        with _room(), part.open("ab") as file:
            for chunk in chunks:
                if hasher.size + len(chunk) > room:
                    raise TooLarge(_too_large(name, room), field="files")
                file.write(chunk)
                hasher.update(chunk)
    except (TooLarge, NoRoom):
        part.unlink(missing_ok=True)
        raise


def complete(draft: UUID, name: str) -> None:
    """Put a file that has arrived beside the others."""
    _part(draft, name).replace(folder_of(draft) / name)


def remove(draft: UUID, name: str) -> None:
    """Remove a file, in part or whole."""
    for place in (_part(draft, name), folder_of(draft) / name):
        place.unlink(missing_ok=True)


def size_of_part(draft: UUID, name: str) -> int:
    """Return how much of an incomplete file is there."""
    part = _part(draft, name)
    return part.stat().st_size if part.exists() else 0


def remove_all(draft: UUID) -> None:
    """Remove everything of a draft."""
    shutil.rmtree(folder_of(draft), ignore_errors=True)


def _part(draft: UUID, name: str) -> Path:
    return folder_of(draft) / _ARRIVING / name


def _too_large(name: str, room: int) -> str:
    remedy = (
        "Save in float16, or train with a smaller rank or fewer modules."
        if name in {WEIGHTS, PICKLE}
        else "Leave it out or shorten it."
    )
    return f"{name} passes the limit of {room:,} bytes. {remedy}"


@contextlib.contextmanager
def _room() -> Iterator[None]:
    """Turn the operating system's 'no space' into the error that users read."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise NoRoom(
                "The site's disk is full, so the file was not kept. Try again later; "
                "the administrator has to make room."
            ) from error
        raise
