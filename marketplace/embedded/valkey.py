"""Run a private Valkey (or Redis) on a unix socket, as a foreground child of this process.

It carries the task queue and the cache. Every accepted task is written to the append-only file, and
no key is evicted to make room, because a queue that forgets is no queue.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from marketplace.embedded.errors import MissingServer, ServerFailed
from marketplace.embedded.privileges import (
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
)
from marketplace.embedded.programs import Source, ValkeyProgram, find_valkey

START_SECONDS = 60.0
ANSWER_SECONDS = 5.0


@dataclass(frozen=True)
class RunningValkey:
    """A Valkey that answers; `url` is the broker for Celery, `cache_url` the cache for Django."""

    url: str
    cache_url: str
    socket_path: Path
    program: ValkeyProgram
    process: ChildProcess
    storage: Path
    durable: bool

    def stop(self) -> None:
        """Stop after everything has been written; delete data that was not meant to last."""
        self.process.stop()
        if not self.durable:
            forget_folder(self.storage)

    def count_consumers(self) -> int:
        """Return how many clients wait for a task (Celery's workers wait with BRPOP)."""
        clients = ask(self.socket_path, "CLIENT LIST")
        return sum(" cmd=brpop " in f"{line} " for line in clients.splitlines())


def start(
    data_dir: Path,
    *,
    durable: bool = True,
    source: Source = "auto",
    log: Path | None = None,
    pause: Pause = time.sleep,
) -> RunningValkey:
    """Start Valkey with its files below `data_dir`; see `postgres.start` for the arguments."""
    account = find_account()
    folder = place_server_folder(data_dir, account, durable=durable)
    program = find_valkey(source)
    if program is None:
        raise MissingServer(
            "No Valkey or Redis server was found on this machine.",
            fix="Install one (Debian: apt-get install redis-server), or set CELERY_BROKER_URL.",
        )
    runnable = place_program(program.path.parent, (program.path.name,), account) / program.path.name
    storage = own_folder(folder / "valkey", account)
    stop_leftover(storage)
    path = place_socket_folder(folder, account) / "valkey.sock"
    process = ChildProcess(
        ProcessSpec(
            "Valkey",
            _server_command(runnable, storage, path, durable=durable),
            log if log is not None else data_dir / "log" / "valkey.log",
            account=account,
        )
    )
    try:
        process.wait_until(lambda: _is_ready(path), seconds=START_SECONDS, pause=pause)
    except BaseException:
        process.stop()
        raise
    return RunningValkey(
        url=f"redis+socket://{path}?virtual_host=0",
        cache_url=f"unix://{path}?db=1",
        socket_path=path,
        program=program,
        process=process,
        storage=storage,
        durable=durable,
    )


def stop_leftover(storage: Path) -> bool:
    """Stop the server that the pid file names, if it still runs; tell whether there was one."""
    pid_file = storage / "valkey.pid"
    with contextlib.suppress(OSError, ValueError):
        pid = int(pid_file.read_text())
        if is_alive(pid) and runs_program(pid, {"valkey-server", "redis-server"}):
            if not end_process(pid, first=signal.SIGTERM, seconds=20):
                raise ServerFailed(
                    f"An earlier Valkey (process {pid}) does not stop.",
                    fix=f"End it: kill -9 {pid}",
                )
            return True
        pid_file.unlink()
    return False


def ask(path: Path, command: str) -> str:
    """Send one command to the server and return its answer (one line, or one bulk string).

    Args:
        path: the server's socket.
        command: the words of the command, separated by spaces.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_SECONDS)
        connection.connect(str(path))
        connection.sendall(f"{command}\r\n".encode())
        with connection.makefile("rb") as answer:
            first = answer.readline().decode().strip()
            if first.startswith("$"):
                return answer.read(max(0, int(first[1:]))).decode(errors="replace")
            return first


def _server_command(program: Path, storage: Path, path: Path, *, durable: bool) -> list[str]:
    settings = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "dir": str(storage),
        "pidfile": str(storage / "valkey.pid"),
        "daemonize": "no",
        "save": "",
        "appendonly": "yes" if durable else "no",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
    }
    command = [str(program)]
    for name, value in settings.items():
        command += [f"--{name}", value]
    return command


def _is_ready(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return ask(path, "PING") == "+PONG"  # while it loads its file it answers -LOADING
    return False
