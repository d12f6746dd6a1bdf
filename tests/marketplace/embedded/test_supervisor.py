from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from marketplace.embedded.console import Console
from marketplace.embedded.errors import Interrupted, ServerFailed
from marketplace.embedded.lock import Holder, hold_lock
from marketplace.embedded.processes import ChildProcess, ProcessSpec
from marketplace.embedded.stop_requests import StopRequests
from marketplace.embedded.supervisor import (
    DATABASE_TIER,
    QUEUE_TIER,
    SITE_TIER,
    Supervisor,
    end_leftovers,
)

SLEEP = "import time; print('awake', flush=True); time.sleep(60)"


class Pipe(io.StringIO):
    encoding = "utf-8"


def start(folder: Path, name: str, code: str = SLEEP) -> ChildProcess:
    return ChildProcess(ProcessSpec(name, [sys.executable, "-c", code], folder / f"{name}.log"))


@pytest.fixture
def stops(signals):
    requests = StopRequests()
    requests.listen()
    return requests


def test_it_works(tmp_path, stops):
    """Whoever uses another child stops before it, in whatever order they were started."""
    stream = Pipe()
    console = Console(stops.pause, stream)
    with hold_lock(tmp_path) as lock, Supervisor(console, stops, lock) as supervisor:
        children = {}
        for name, tier in (("web", SITE_TIER), ("database", DATABASE_TIER), ("queue", QUEUE_TIER)):
            children[name] = start(tmp_path, name)
            supervisor.adopt(children[name], tier)
        assert lock.holder.children == {name: child.pid for name, child in children.items()}
    stopped = [line.split()[2] for line in stream.getvalue().splitlines()]
    assert stopped == ["web", "queue", "database"]
    assert all(child.exit_code is not None for child in children.values())


def test_a_dead_child_is_named_with_its_log(tmp_path, stops):
    console = Console(stops.pause, Pipe())
    with hold_lock(tmp_path) as lock, Supervisor(console, stops, lock) as supervisor:
        supervisor.adopt(start(tmp_path, "web", "raise SystemExit(3)"), SITE_TIER)
        with pytest.raises(ServerFailed, match="web ended with exit code 3") as caught:
            supervisor.watch()
    assert caught.value.log == tmp_path / "web.log"


def test_a_request_to_stop_ends_the_watch(tmp_path, stops):
    console = Console(stops.pause, Pipe())
    with hold_lock(tmp_path) as lock, Supervisor(console, stops, lock) as supervisor:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted):
            supervisor.watch()


def test_leftovers_are_ended_by_what_they_are_not_by_their_number():
    with subprocess.Popen(
        [sys.executable, "-c", SLEEP, "uvicorn", "marketplace.asgi"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as web:
        assert web.stdout is not None
        web.stdout.readline()
        holder = Holder(1, children={"web server": web.pid, "worker": os.getpid()})
        assert end_leftovers(holder) == ["web server"]
        assert web.wait(10) == -signal.SIGTERM
    assert end_leftovers(holder) == []
    assert end_leftovers(None) == []
