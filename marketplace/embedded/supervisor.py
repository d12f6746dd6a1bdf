"""Keep the children of one `./dev` together: all of them run, or none.

They stop in the reverse order of their tiers: web and worker first, because they use the others;
then Valkey, which the worker hands unfinished tasks back to; then PostgreSQL.
"""

from __future__ import annotations

import signal
import types
from typing import Self

from marketplace.embedded.console import Console
from marketplace.embedded.errors import ServerFailed
from marketplace.embedded.lock import DataLock, Holder
from marketplace.embedded.process_table import command_of, end_process, is_alive
from marketplace.embedded.processes import (
    ChildProcess,
    describe_exit,
)
from marketplace.embedded.stop_requests import StopRequests

DATABASE_TIER, QUEUE_TIER, SITE_TIER = 1, 2, 3
WATCH_SECONDS = 1.0
LEFTOVER_SECONDS = 10.0


class Supervisor:
    """The running children, as a context manager that stops them in order."""

    def __init__(self, console: Console, stops: StopRequests, lock: DataLock) -> None:
        self._console = console
        self._stops = stops
        self._lock = lock
        self._tiers: dict[ChildProcess, int] = {}

    def __enter__(self) -> Self:
        self._console.pause = self.pause
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self._stops.shield()
        self._console.pause = self._stops.pause
        self._stop_all()

    def adopt(self, child: ChildProcess, tier: int) -> None:
        """Take a started child into care."""
        self._tiers[child] = tier
        self._lock.holder.children[child.spec.name] = child.pid
        self._lock.save()

    def pause(self, seconds: float) -> None:
        """Wait a moment; raise if a stop was requested or a child has died."""
        self._stops.pause(seconds)
        for child in self._tiers:
            if child.exit_code is not None:
                raise ServerFailed(
                    f"{child.spec.name} ended {describe_exit(child.exit_code)}; "
                    "everything else is being stopped.",
                    fix="The end of its log tells why. Start again with ./dev up; no data is lost.",
                    log=child.spec.log,
                )

    def watch(self) -> None:
        """Keep serving until a stop is requested or a child dies; both arrive as an exception."""
        while True:
            self.pause(WATCH_SECONDS)

    def _stop_all(self) -> None:
        for tier in sorted(set(self._tiers.values()), reverse=True):
            children = [child for child, its in self._tiers.items() if its == tier]
            names = " and ".join(child.spec.name for child in children)
            with self._console.step(f"Stopping {names}"):
                for child in children:
                    child.request_stop()
                for child in children:
                    child.stop()


def end_leftovers(previous: Holder | None) -> list[str]:
    """End what a killed supervisor left running (where the kernel does not do it); name it."""
    ended = []
    children = previous.children if previous else {}
    # The servers are stopped with their own pid files when they are started again.
    for name, words in (("web server", "uvicorn marketplace"), ("worker", "celery -A marketplace")):
        pid = children.get(name)
        if pid and is_alive(pid) and words in command_of(pid):
            end_process(pid, first=signal.SIGTERM, seconds=LEFTOVER_SECONDS)
            ended.append(name)
    return ended
