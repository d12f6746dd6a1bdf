"""An object storage that signs addresses: the site reads its folder, others another origin."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from django.core.files import File
from django.core.files.storage import Storage


class OffloadingStorage(Storage):
    """Content is read here by the site, and fetched from another origin by everybody else."""

    def _open(self, name: str, mode: str = "rb") -> File[bytes]:
        content: IO[bytes] = (Path(os.environ["DATA_DIR"]) / "blobs" / name).open("rb")
        return File(content)

    def exists(self, name: str) -> bool:
        """Whether the content is there."""
        return (Path(os.environ["DATA_DIR"]) / "blobs" / name).exists()

    def url(self, name: str | None) -> str:
        """Return an address at the other origin."""
        return f"{os.environ['OTHER_ORIGIN']}/{name}?signature=1"
