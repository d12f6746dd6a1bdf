"""Decide as whom and where the servers run.

PostgreSQL refuses to run as root, so root hands the servers to an unprivileged user; that user must
be able to reach the data and the programs, which it cannot below a 0700 home. This module answers
those two questions and leaves starting to others.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from marketplace.embedded.errors import EmbeddedError
from marketplace.embedded.process_table import is_alive

SHARED_HOME = Path("/var/lib/lora-marketplace")
THROWAWAY_HOME = SHARED_HOME / "throwaway"
SERVER_USERS = ("postgres", "nobody")
LONGEST_SOCKET_FOLDER = 80  # a socket's path may have 103 (macOS) or 107 (Linux) characters


@dataclass(frozen=True)
class Account:
    """The operating system user that a server runs as; None means the current one."""

    name: str
    uid: int
    gid: int

    @property
    def differs(self) -> bool:
        """Whether processes must be handed to another user than the current one."""
        return self.uid != os.geteuid()


def find_account() -> Account:
    """Return the current user, or for root the unprivileged user that stands in."""
    if os.geteuid() != 0:
        return Account(_current_name(), os.geteuid(), os.getegid())
    for name in SERVER_USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise EmbeddedError(
        "PostgreSQL does not run as root, and this machine has no user postgres or nobody.",
        fix="Create one (useradd --system postgres), or run this as an ordinary user.",
    )


def place_server_folder(data_dir: Path, account: Account, *, durable: bool = True) -> Path:
    """Create and return the folder where the servers keep their files.

    What is not durable and has to be elsewhere carries our process id in its name, so that a later
    run can tell what a killed one left behind.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    data_dir = data_dir.resolve()
    folder = find_server_folder(data_dir, account)
    if folder != data_dir and not durable:
        remove_abandoned()
        folder = THROWAWAY_HOME / f"{os.getpid()}-{folder.name}"
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    return folder


def find_server_folder(data_dir: Path, account: Account) -> Path:
    """Return `data_dir` if `account` can reach it, else its stand-in below /var/lib."""
    if not account.differs or can_reach(data_dir, account):
        return data_dir
    return SHARED_HOME / short_hash(data_dir)


def remove_abandoned() -> None:
    """Delete the throw-away folders of processes that no longer exist."""
    for folder in THROWAWAY_HOME.glob("*-*"):
        pid = folder.name.partition("-")[0]
        if pid.isdigit() and not is_alive(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def forget_folder(folder: Path) -> None:
    """Delete throw-away data, and the folder around it if nothing else is left there."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        (folder.parent / "sockets").rmdir()
    with contextlib.suppress(OSError):
        folder.parent.rmdir()


def own_folder(folder: Path, account: Account) -> Path:
    """Create `folder` for `account` alone (mode 0700) and return it."""
    folder.mkdir(mode=0o700, exist_ok=True)
    if account.differs:
        os.chown(folder, account.uid, account.gid)
    folder.chmod(0o700)
    return folder


def place_socket_folder(folder: Path, account: Account) -> Path:
    """Return a private folder for sockets: `folder/sockets`, or a short one below /tmp."""
    wanted = folder / "sockets"
    if len(os.fsencode(wanted)) <= LONGEST_SOCKET_FOLDER:
        return own_folder(wanted, account)
    # The sticky bit of /tmp is what makes this safe: once ours, nobody else can replace it.
    short = Path("/tmp") / f"lora-{account.uid}-{short_hash(folder)}"  # noqa: S108
    own_folder_in_public(short, account)
    return short


def own_folder_in_public(folder: Path, account: Account) -> None:
    """Create `folder` in a world-writable place, refusing one that someone else put there."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        found = folder.lstat()
        trusted = found.st_uid in {account.uid, os.geteuid()} and stat.S_ISDIR(found.st_mode)
        if not trusted:
            raise EmbeddedError(
                f"{folder} belongs to somebody else.",
                fix=f"Remove {folder}, or choose a shorter data folder with --data.",
            ) from None
    own_folder(folder, account)


def place_program(folder: Path, subfolders: tuple[str, ...], account: Account) -> Path:
    """Return a folder with the programs that `account` can run: `folder` itself, or a copy.

    Args:
        folder: holds `subfolders`.
        subfolders: what belongs together (a program and its libraries), relative to `folder`.
        account: the user that will run them.
    """
    folder = folder.resolve()
    if not account.differs or can_reach(folder / subfolders[0], account):
        return folder
    name = short_hash(folder / subfolders[0], extra=str((folder / subfolders[0]).stat().st_mtime))
    target = SHARED_HOME / "programs" / name
    if not target.exists():
        _copy_atomically(folder, subfolders, target)
    return target


def can_reach(path: Path, account: Account) -> bool:
    """Tell whether `account` may enter the folder `path` (or run the file)."""
    test = ["/bin/sh", "-c", 'test -x "$1"', "sh", str(path)]
    answer = subprocess.run(
        test, cwd="/", user=account.uid, group=account.gid, extra_groups=[], timeout=10, check=False
    )
    return answer.returncode == 0


def short_hash(path: Path, *, extra: str = "") -> str:
    """Return a short name that is the same for the same path."""
    return hashlib.sha256(f"{path.resolve()}{extra}".encode()).hexdigest()[:12]


def _copy_atomically(folder: Path, subfolders: tuple[str, ...], target: Path) -> None:
    building = target.with_name(f"{target.name}.{os.getpid()}")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(mode=0o755, parents=True)
    for name in subfolders:
        source = folder / name
        if source.is_dir():
            shutil.copytree(source, building / name, symlinks=True)
        elif source.exists():
            (building / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, building / name)
    try:
        building.rename(target)
    except OSError:  # another process was faster; its copy is as good
        shutil.rmtree(building, ignore_errors=True)


def _current_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container's user need not be listed
        return str(os.geteuid())
