"""Ask about processes that are not our children, and end those that a killed supervisor left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

POLL_SECONDS = 0.02


def is_alive(pid: int) -> bool:
    """Tell whether a process with this id exists (a zombie counts as gone)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not command_of(pid).startswith("<defunct>")


def command_of(pid: int) -> str:
    """Return the command line of a process, or an empty text if it is gone."""
    if Path("/proc/self").exists():
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return ""
        return line.replace(b"\0", b" ").decode(errors="replace").strip() or "<defunct>"
    answer = subprocess.run(
        ["ps", "-o", "command=", "-p", str(pid)],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    return answer.stdout.strip()


def end_process(pid: int, *, first: signal.Signals, seconds: float) -> bool:
    """Stop a process that is not our child: `first`, then SIGKILL; tell whether it is gone."""
    for number, patience in ((first, seconds), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            os.kill(pid, signal.SIGCONT)  # a suspended process would not notice
        deadline = time.monotonic() + patience
        while is_alive(pid) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        if not is_alive(pid):
            return True
    return False
