"""Write a result whole or not at all: a scratch folder beside the target, renamed at the end."""

from __future__ import annotations

import contextlib
import errno
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from composer.errors import SearchError, StorageFull

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


def require_free(target: Path) -> None:
    """Refuse an output folder that already holds something, before any work is done.

    Raises:
        SearchError: naming the folder.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        message = f"{target} exists and is not empty. Choose another folder."
        raise SearchError(message)


@contextlib.contextmanager
def beside(target: Path) -> Iterator[Path]:
    """Give a scratch folder that becomes `target` if all goes well, and vanishes if not."""
    require_free(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield scratch
        scratch.chmod(0o755)
        if target.exists():
            target.rmdir()
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def room() -> Iterator[None]:
    """Turn a full disk into the error that users read.

    Raises:
        StorageFull: where the libraries say that no space is left.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        full = isinstance(error, OSError) and error.errno in NO_SPACE
        if full or "No space left" in str(error):
            message = "The disk is full, so the result was not written."
            raise StorageFull(message) from error
        raise
