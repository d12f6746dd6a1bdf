"""`./dev up` of a miniature as a process under test: what it says, whom it started, how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from marketplace.embedded.process_table import is_alive


class RunningDev:
    """One `./dev up`, its output in a file."""

    def __init__(self, project: Path, *arguments: str, **options: Any) -> None:
        self.data = project / "var"
        if "--data" in arguments:
            self.data = Path(arguments[arguments.index("--data") + 1])
        self.port = free_port()
        self.output = project / f"output-{self.port}.txt"
        with self.output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, str(project / "dev"), "up", "--port", str(self.port), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd="/",
                env=clean_environment(),
                **options,
            )

    def text(self) -> str:
        """What it has printed so far."""
        return self.output.read_text()

    def wait_for(self, words: str) -> None:
        """Wait until it has printed these words."""
        wait_until(lambda: words in self.text() or self.process.poll() is not None)
        assert words in self.text(), self.text()

    def wait(self) -> int:
        """Wait for its end and return its exit code."""
        return self.process.wait(60)

    def children(self) -> dict[str, int]:
        """The processes that it has started, by name."""
        return dict(json.loads((self.data / "dev.lock").read_text())["children"])


@contextlib.contextmanager
def serving(project: Path, *arguments: str, **options: Any) -> Iterator[RunningDev]:
    """Run `./dev up` until the block ends; give it once it serves."""
    running = RunningDev(project, *arguments, **options)
    try:
        running.wait_for("Serving at")
        yield running
    finally:
        if running.process.poll() is None:
            running.process.send_signal(signal.SIGTERM)
            running.process.wait(60)


def run_dev(project: Path, *arguments: str, **options: Any) -> tuple[int, str]:
    """Run another `./dev` command to its end; return exit code and output."""
    done = subprocess.run(
        [sys.executable, str(project / "dev"), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd="/",
        env=clean_environment(),
        **options,
    )
    return done.returncode, done.stdout + done.stderr


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Poll a condition; fail when it stays false."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition stayed false"
        time.sleep(0.02)


def child_of(pid: int) -> int:
    """The oldest child of a process."""
    listed = subprocess.run(
        ["pgrep", "--oldest", "--parent", str(pid)], capture_output=True, text=True, check=True
    )
    return int(listed.stdout)


def all_gone(pids: dict[str, int]) -> bool:
    """Tell whether none of the processes runs any more, nor anything in their groups."""
    return not any(is_alive(pid) or _group_is_alive(pid) for pid in pids.values())


def _group_is_alive(leader: int) -> bool:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if fields[2] == str(leader) and fields[0] != "Z":
                return True
    return False


def free_port() -> int:
    """Return a port of the loopback that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def clean_environment() -> dict[str, str]:
    """A user's plain shell: nothing of this test run's servers and settings."""
    kept = {"PATH", "HOME", "LANG", "TMPDIR"}
    return {name: value for name, value in os.environ.items() if name in kept}
