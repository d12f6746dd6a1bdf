"""Where bytes lie until they are stored or thrown away: under the site's own data, never served."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings

KEPT_SECONDS = 24 * 3600


def hub_folder(name: str) -> Path:
    """Return a folder of the hub's own, made where it does not exist yet."""
    folder = Path(settings.DATA_DIR) / "hub" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def working_folder() -> Iterator[Path]:
    """Give a folder that is gone afterwards, whatever happens."""
    with tempfile.TemporaryDirectory(dir=hub_folder("work")) as folder:
        yield Path(folder)


def remove_old(folder: Path) -> int:
    """Remove what a crash or a client that never came back has left; return how many things."""
    limit = time.time() - KEPT_SECONDS
    count = 0
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.stat().st_mtime > limit:
            continue
        count += 1
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
    return count
