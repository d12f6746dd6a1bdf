"""Ask about processes that are not our children, and end those that a killed supervisor left."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Set
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
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Tell whether a process has ended and only waits for its parent.

    One that is ending has no command line any more, but still its files, locks and sockets.
    """
    if not Path("/proc/self").exists():
        return command_of(pid).startswith("<defunct>")
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:  # it has gone meanwhile
        return True
    return stat.rpartition(")")[2].split()[0] in {"Z", "X"}


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


def runs_program(pid: int, names: Set[str], *, words: str = "") -> bool:
    """Tell whether a process runs one of these programs, with these words in its command line.

    The number alone says little (it may have been given away again), and the words alone would
    also match an editor that has a file of that name open.
    """
    command = command_of(pid)
    pattern = rf"(^|/)({'|'.join(map(re.escape, sorted(names)))})(\s|:|$)"
    return words in command and re.search(pattern, command) is not None


def end_process(pid: int, *, first: signal.Signals, seconds: float) -> bool:
    """Stop a process that is not our child: `first`, then SIGKILL; tell whether it is gone.

    What it leaves in its own process group goes with it.
    """
    leads_group = False
    with contextlib.suppress(ProcessLookupError):
        leads_group = os.getpgid(pid) == pid
    for number, patience in ((first, seconds), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            os.kill(pid, signal.SIGCONT)  # a suspended process would not notice
        deadline = time.monotonic() + patience
        while is_alive(pid) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        if not is_alive(pid):
            if leads_group:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
            return True
    return False
