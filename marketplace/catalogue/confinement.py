"""Run `composer.inspection` with little memory, little time and no network.

A script of its own, started by `validation` as a fresh process: the limits are set here, before
anything of the files is read, so that no thread of the web process runs code between fork and exec.
Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import runpy
import sys
from pathlib import Path

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000


def main() -> None:
    """Confine this process, then become the inspection: MEMORY SECONDS FILE_SIZE ARGUMENTS..."""
    memory, seconds, file_size = (int(text) for text in sys.argv[1:4])
    leave_network()
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.argv = ["composer.inspection", *sys.argv[4:]]
    runpy.run_module("composer.inspection", run_name="__main__", alter_sys=True)


def leave_network() -> bool:
    """Move into a network without any device, where the system allows it; say whether it did."""
    unshare = getattr(ctypes.CDLL(None, use_errno=True), "unshare", None)
    if unshare is None:
        return False
    user, group = os.getuid(), os.getgid()
    if user == 0:
        return bool(unshare(CLONE_NEWNET) == 0)
    if unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
        return False
    # Files made from here on need an owner that exists in the new user namespace.
    with contextlib.suppress(OSError):
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    return True


if __name__ == "__main__":
    main()
