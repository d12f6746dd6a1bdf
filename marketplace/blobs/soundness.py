"""Which stored files this process has hashed and found right a short while ago.

Hashing takes longer than sending, so a file that was whole is not hashed again for every download.
It counts as the same file while its inode, size and times are; what changes on the disk without
that is found within the hour, and by `verify_storage`. Where nothing tells, it is always hashed.
"""

from __future__ import annotations

import io
import os
import time
from collections import OrderedDict
from typing import IO

TRUSTED_SECONDS = 3600.0
MAX_FILES = 10_000

Identity = tuple[str, int, int, int, int, int]
_sound: OrderedDict[Identity, float] = OrderedDict()


def identify(file: IO[bytes], sha256: str) -> Identity | None:
    """Return what tells this file from every other state of it, or None where nothing does."""
    try:
        facts = os.fstat(file.fileno())
    except (AttributeError, io.UnsupportedOperation, OSError):
        return None
    return (
        sha256,
        facts.st_dev,
        facts.st_ino,
        facts.st_size,
        facts.st_mtime_ns,
        facts.st_ctime_ns,
    )


def is_sound(identity: Identity | None) -> bool:
    """Whether it was hashed within the hour."""
    if identity is None:
        return False
    return time.monotonic() - _sound.get(identity, -TRUSTED_SECONDS) < TRUSTED_SECONDS


def remember_sound(identity: Identity | None) -> None:
    """Note that all of it was hashed just now and was right."""
    if identity is None:
        return
    _sound[identity] = time.monotonic()
    _sound.move_to_end(identity)
    if len(_sound) > MAX_FILES:
        _sound.popitem(last=False)
