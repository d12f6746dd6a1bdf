"""Where received files lie until they are accepted: outside the storage, served to nobody.

A draft has one folder, named by its id; file names in it are checked, never a user's path.
"""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from django.conf import settings

from marketplace.blobs.hashing import Hasher
from marketplace.uploads.errors import NoRoom, TooLarge, UploadError

CONFIG, WEIGHTS, PICKLE, CARD = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
    "README.md",
)
SMALL_BYTES = 512 * 1024
_SMALL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}\.(json|md|txt|jsonl|yaml|yml|jinja)\Z")
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True)
class Received:
    """What lies in quarantine of one file after a request."""

    size: int
    sha256: str


def folder_of(draft: UUID) -> Path:
    """Return the draft's folder."""
    return Path(settings.QUARANTINE_DIR) / str(draft)


def check_name(path: str) -> str:
    """Return the name of a file that may be part of an adapter, without the folder it came in.

    Raises:
        UploadError: naming what may be uploaded.
    """
    name = path.replace("\\", "/").rpartition("/")[2]
    if name in {WEIGHTS, PICKLE} or _SMALL.match(name):
        return name
    raise UploadError(
        {
            "files": [
                (
                    f"“{name[:60]}” is not part of a LoRA adapter. Upload {CONFIG}, {WEIGHTS} "
                    f"(or {PICKLE}), and small text files such as {CARD}."
                )
            ]
        }
    )


def limit_of(name: str) -> int:
    """Return how many bytes a file of this name may have."""
    return int(settings.MAX_WEIGHTS_BYTES) if name in {WEIGHTS, PICKLE} else SMALL_BYTES


def receive(
    draft: UUID,
    name: str,
    chunks: Iterable[bytes],
    *,
    offset: int,
    room: int,
    is_current: Callable[[], bool],
) -> Received:
    """Append chunks to a file from `offset` on, checking the limits at every chunk.

    Args:
        draft: the draft's id.
        name: a name that `check_name` gave.
        chunks: the bytes as they come in.
        offset: where they begin: 0 begins the file anew, its present length goes on with it.
        room: how many bytes this file may have at most.
        is_current: asked now and then whether this request is still the one that writes.

    Raises:
        TooLarge: the limit was passed; the file is removed.
        NoRoom: the disk is full; the file is removed.
        UploadError: `offset` is not where the file ends.
    """
    place = folder_of(draft) / f"{name}.part"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        have = place.stat().st_size if place.exists() else 0
        if offset not in {0, have}:
            raise UploadError(
                {"files": [f"{name} has {have} bytes here; go on at offset {have}, or at 0."]}
            )
        hasher = _hash_existing(place) if offset else Hasher()
        with place.open("r+b" if offset else "wb") as file:
            file.seek(offset)
            for chunk in chunks:
                hasher.update(chunk)
                if hasher.size > room:
                    raise TooLarge({"files": [_too_large(name, room)]})
                if not is_current():
                    raise UploadError({"files": [f"{name} is being sent by another request."]})
                file.write(chunk)
    except TooLarge:
        place.unlink(missing_ok=True)
        raise
    except OSError as error:
        place.unlink(missing_ok=True)
        if error.errno in _NO_SPACE:
            raise NoRoom(
                {"files": ["The site's disk is full, so the file was not kept. Try again later."]}
            ) from error
        raise
    return Received(hasher.size, hasher.sha256)


def complete(draft: UUID, name: str) -> None:
    """Give a file that has arrived its own name."""
    folder = folder_of(draft)
    (folder / f"{name}.part").replace(folder / name)


def remove(draft: UUID, name: str) -> None:
    """Remove a file, in part or whole."""
    for place in (folder_of(draft) / f"{name}.part", folder_of(draft) / name):
        place.unlink(missing_ok=True)


def remove_all(draft: UUID) -> None:
    """Remove everything of a draft."""
    shutil.rmtree(folder_of(draft), ignore_errors=True)


def _hash_existing(place: Path) -> Hasher:
    hasher = Hasher()
    with place.open("rb") as file:
        while chunk := file.read(1024 * 1024):
            hasher.update(chunk)
    return hasher


def _too_large(name: str, room: int) -> str:
    return (
        f"{name} passes the limit of {room / 1_000_000:,.1f} MB. "
        "Save it in float16, lower the rank, or ask the administrator for more room."
    )
