"""What this process held at most of the machine's memory, and from when on.

The kernel keeps the peak since a process began; a worker does many jobs, so each forgets the peak
of the one before. Only Linux can do that; elsewhere there is no figure.
"""

from __future__ import annotations

from pathlib import Path

_STATUS = Path("/proc/self/status")
_FORGET = Path("/proc/self/clear_refs")


def forget_peak() -> None:
    """Let the peak begin anew at what the process holds now, where the kernel lets us."""
    try:
        _FORGET.write_text("5")
    except OSError:
        return  # the figure is then the peak of an earlier job, if that was higher


def read_peak() -> int | None:
    """Return the bytes of resident memory at the peak, None where the system does not tell."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    found = [line.split() for line in lines if line.startswith("VmHWM:")]
    return int(found[0][1]) * 1024 if found else None
