"""Start, watch and stop one child process so that nothing can hang or be left behind.

Each child has its own session (a Ctrl-C in the terminal reaches only the supervisor, which stops
its children in order), writes to its own log, and on Linux is told by the kernel when the
supervisor dies. What the children are and in which order they stop is decided elsewhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from marketplace.embedded.errors import MissingServer, ServerFailed
from marketplace.embedded.privileges import Account

PR_SET_PDEATHSIG = 1
POLL_SECONDS = 0.02
TAIL_LINES = 20
LARGEST_LOG = 10 * 1024 * 1024

Pause = Callable[[float], None]


@dataclass(frozen=True)
class ProcessSpec:
    """What to run, as whom, where, and how it wants to be stopped."""

    name: str
    command: Sequence[str]
    log: Path | None  # None: it talks to the user's terminal
    env: Mapping[str, str] | None = None
    cwd: Path = Path("/")
    account: Account | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 20


class ChildProcess:
    """One running child of this process."""

    def __init__(self, spec: ProcessSpec) -> None:
        self.spec = spec
        self.started_at = time.monotonic()
        self._log_start = 0
        if spec.log is None:
            self._popen = _spawn(spec, None)
            return
        spec.log.parent.mkdir(parents=True, exist_ok=True)
        _put_aside(spec.log)
        with spec.log.open("ab") as log:
            log.write(f"---- {time.strftime('%Y-%m-%d %H:%M:%S')} {spec.name} starts\n".encode())
            log.flush()
            self._log_start = log.tell()
            self._popen = _spawn(spec, log.fileno())

    @property
    def pid(self) -> int:
        """The process id."""
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._popen.poll()

    def wait_until(self, ready: Callable[[], bool], *, seconds: float, pause: Pause) -> None:
        """Poll `ready` until it is true; fail if the process ends or the time is over first."""
        deadline = time.monotonic() + seconds
        while True:
            ended = self.exit_code  # read first: an end while `ready` looks is seen the next time
            if ready():
                return
            if ended is not None:
                raise ServerFailed(
                    f"{self.spec.name} ended {describe_exit(ended)} while starting.",
                    fix="The end of its log tells why.",
                    log=self.spec.log,
                )
            if time.monotonic() > deadline:
                raise ServerFailed(
                    f"{self.spec.name} was not ready within {seconds:.0f} seconds.",
                    fix="The end of its log tells why; a very busy machine can be the reason.",
                    log=self.spec.log,
                )
            pause(POLL_SECONDS)

    def request_stop(self) -> None:
        """Ask the process to stop, without waiting for it."""
        if self.exit_code is None:
            self._signal(self.spec.stop_signal)

    def stop(self) -> int:
        """Ask it to stop, kill its whole session if it does not, and return its exit code."""
        self.request_stop()
        if self.exit_code is None:
            try:
                self._popen.wait(self.spec.stop_seconds)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
        self._kill_session()
        return self._popen.wait(10)

    def new_log_text(self) -> str:
        """Return what the process has logged since it started."""
        if self.spec.log is None:
            return ""
        with self.spec.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._popen.send_signal(number)

    def _kill_session(self) -> None:
        # The child leads its own process group: this reaches what it left behind, and no one else.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, signal.SIGKILL)


def run_to_end(command: Sequence[str], *, account: Account, log: Path, seconds: float) -> None:
    """Run a short command as `account` with its output in `log`; raise when it fails."""
    spec = ProcessSpec(Path(command[0]).name, command, log, account=account)
    child = ChildProcess(spec)
    try:
        child.wait_until(lambda: child.exit_code == 0, seconds=seconds, pause=time.sleep)
    finally:
        child.stop()


def run_in_foreground(command: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> int:
    """Run a command that owns the terminal (psql, a shell) and return its exit code.

    Ctrl-C is the command's own business meanwhile.
    """
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        return subprocess.run(list(command), env=dict(env), cwd=cwd, check=False).returncode
    except FileNotFoundError:
        raise MissingServer(
            f"The program {command[0]} was not found.", fix="Install it and run this again."
        ) from None
    finally:
        signal.signal(signal.SIGINT, before)


def describe_exit(code: int | None) -> str:
    """Say in words how a process ended."""
    if code is None:
        return "without an exit code"
    if code < 0:
        return f"by signal {signal.Signals(-code).name}"
    return f"with exit code {code}"


def read_tail(log: Path, *, lines: int = TAIL_LINES) -> str:
    """Return the last lines of a log, or an empty text."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 200 * lines))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def _put_aside(log: Path) -> None:
    """Keep one older log when this one has grown large."""
    if log.is_file() and log.stat().st_size > LARGEST_LOG:
        log.replace(log.with_name(f"{log.name}.1"))


def _spawn(spec: ProcessSpec, log: int | None) -> subprocess.Popen[bytes]:
    account = spec.account if spec.account is not None and spec.account.differs else None
    return subprocess.Popen(
        list(spec.command),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd=spec.cwd,
        env=dict(spec.env) if spec.env is not None else _bare_environment(),
        start_new_session=True,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
        preexec_fn=_die_with_parent(spec.stop_signal),  # noqa: PLW1509 (no threads run here)
    )


def _die_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """Return what the child does between fork and exec so that it never outlives this process."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # loaded before the fork, not after it
    parent = os.getpid()

    def prepare() -> None:
        prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the line above
            os._exit(1)

    return prepare


def _bare_environment() -> dict[str, str]:
    """Return an environment that no setting of the user's shell can reach (PGDATA, PGPORT ...)."""
    keep = {"PATH", "HOME", "TZ", "TMPDIR", "DYLD_LIBRARY_PATH", "LD_LIBRARY_PATH"}
    return {name: value for name, value in os.environ.items() if name in keep} | {"LC_ALL": "C"}
