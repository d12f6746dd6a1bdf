"""One supervisor for one data folder: a lock that the kernel releases with its holder's death.

The locked file also tells who holds it and how to reach the servers, for `./dev stop`, `psql` and
`manage` in another terminal.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from marketplace.embedded.errors import AlreadyRunning

FILE_NAME = "dev.lock"
TRIES = 5
TRY_SECONDS = 0.02


@dataclass
class Holder:
    """Who holds the lock, and what is running there."""

    pid: int
    address: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    children: dict[str, int] = field(default_factory=dict)


class DataLock:
    """The lock of one data folder, once it is held."""

    def __init__(self, descriptor: int, previous: Holder | None) -> None:
        self._descriptor = descriptor
        self.previous = previous  # whom a kill left in the file
        self.holder = Holder(os.getpid())
        self.save()

    def save(self) -> None:
        """Write the holder's facts into the locked file."""
        data = json.dumps(asdict(self.holder)).encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, data, 0)


@contextlib.contextmanager
def hold_lock(data_dir: Path) -> Iterator[DataLock]:
    """Hold the lock of `data_dir` for the block, or raise `AlreadyRunning`."""
    data_dir.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(data_dir / FILE_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        previous = _read(data_dir)
        if not _try_lock(descriptor):
            raise _already_running(data_dir, previous)
        yield DataLock(descriptor, previous)
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def read_holder(data_dir: Path) -> Holder | None:
    """Return who holds the lock of `data_dir` right now, or None."""
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(data_dir / FILE_NAME, os.O_RDWR)
        try:
            if not _try_lock(descriptor):
                return _read(data_dir) or Holder(0)
        finally:
            os.close(descriptor)
    return None


def _try_lock(descriptor: int) -> bool:
    for _ in range(TRIES):  # `read_holder` elsewhere holds it for an instant
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(TRY_SECONDS)
    return False


def _read(data_dir: Path) -> Holder | None:
    try:
        return Holder(**json.loads((data_dir / FILE_NAME).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _already_running(data_dir: Path, holder: Holder | None) -> AlreadyRunning:
    where = f" at {holder.address}" if holder and holder.address else ""
    process = f" (process {holder.pid})" if holder else ""
    return AlreadyRunning(
        f"It is already running{where}{process}, with its data in {data_dir}.",
        fix=f"Use it, stop it with ./dev stop --data {data_dir}, "
        "or start another one with --data FOLDER --port NUMBER.",
    )
