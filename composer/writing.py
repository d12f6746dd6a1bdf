"""Write a result whole or not at all: a scratch folder beside the target, renamed at the end."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from composer.errors import SearchError, StorageFull

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


def require_free(target: Path) -> None:
    """Refuse an output folder that holds something or cannot be made, before any work is done.

    Raises:
        SearchError: naming the folder.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        message = f"{target} exists and is not empty. Choose another folder."
        raise SearchError(message)
    parent = next(folder for folder in target.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        message = f"{target} cannot be made: {parent} is no folder that you may write to."
        raise SearchError(message)


@contextlib.contextmanager
def beside(target: Path) -> Iterator[Path]:
    """Give a scratch folder that becomes `target` if all goes well, and vanishes if not."""
    require_free(target)
    with _parents(target), _scratch(target) as scratch:
        yield scratch
        scratch.chmod(0o755)
        if target.exists():
            target.rmdir()
        scratch.rename(target)


@contextlib.contextmanager
def _parents(target: Path) -> Iterator[None]:
    """Make the folders above the target, and take them away again if nothing came of it."""
    missing = [folder for folder in target.absolute().parents if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for folder in missing:  # the innermost first; one that holds something stays
            with contextlib.suppress(OSError):
                folder.rmdir()


@contextlib.contextmanager
def _scratch(target: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
