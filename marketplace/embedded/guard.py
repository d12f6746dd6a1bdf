"""Stand between `./dev` and one of its processes, so that nothing of it outlives `./dev`.

A worker that loses its supervisor loses Valkey and PostgreSQL at the same moment, and may then wait
for them instead of stopping. The guard hands on the request to stop (or the supervisor's death,
which it notices on every system), and after a while ends the whole process group, itself included.

Run as a script: guard.py STOP_SIGNAL SECONDS COMMAND [ARGUMENT ...]
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable

POLL_SECONDS = 0.2
PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Run the command until it ends or has to end."""
    stop_signal, patience = signal.Signals(int(arguments[0])), float(arguments[1])
    supervisor = os.getppid()
    asked: list[int] = []

    def ask(number: int, _frame: types.FrameType | None) -> None:
        asked.append(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, ask)
    # It stays in this group, which the guard leads; if the guard is killed, it goes at once.
    child = subprocess.Popen(arguments[2:], preexec_fn=_die_with_guard())  # noqa: PLW1509
    while not asked and os.getppid() == supervisor:
        code = _wait(child, POLL_SECONDS)
        if code is not None:
            return _end_like(code)
    child.send_signal(stop_signal)
    code = _wait_long(child, patience)
    if code is None or os.getppid() != supervisor:
        os.killpg(0, signal.SIGKILL)  # nobody else is left to tidy up
    return _end_like(code or 0)


def _wait_long(child: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Wait for the end; a signal that arrives meanwhile changes nothing."""
    deadline = time.monotonic() + seconds
    while (code := _wait(child, POLL_SECONDS)) is None and time.monotonic() < deadline:
        pass
    return code


def _wait(child: subprocess.Popen[bytes], seconds: float) -> int | None:
    try:
        return child.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _end_like(code: int) -> int:
    """Return the exit code, or end by the same signal, for the supervisor to see."""
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def _die_with_guard() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl

    def prepare() -> None:
        prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)

    return prepare


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
