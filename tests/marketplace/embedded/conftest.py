"""Folders that an unprivileged server can reach, and a miniature project in one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.marketplace.embedded.miniature import build_miniature


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, unlike pytest's own; its path is short."""
    folder = Path(tempfile.mkdtemp(prefix="lm-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def miniature(open_folder: Path) -> Path:
    """A tiny project whose `./dev` is the real one."""
    return build_miniature(open_folder / "project")
