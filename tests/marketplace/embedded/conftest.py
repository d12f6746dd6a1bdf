"""Folders that an unprivileged server can reach, and a miniature project in one."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from marketplace.embedded import commands, installation, quality, site, step_commands
from marketplace.embedded.stop_requests import STOP_SIGNALS
from tests.marketplace.embedded.miniature import build_miniature
from tests.marketplace.embedded.running_dev import clean_environment


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


@pytest.fixture
def signals() -> Iterator[None]:
    """Give the test run its signal handlers back after `StopRequests.listen`."""
    numbers = (*STOP_SIGNALS, signal.SIGCHLD)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def here(miniature: Path, signals: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let `marketplace.embedded` in this process work on the miniature."""
    for module in (commands, installation, quality, site, step_commands):
        monkeypatch.setattr(module, "PROJECT", miniature)
    kept = clean_environment()
    for name in set(os.environ) - set(kept):
        monkeypatch.delenv(name)
    return miniature
