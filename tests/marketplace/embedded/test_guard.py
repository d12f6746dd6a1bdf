from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from marketplace.embedded import guard
from marketplace.embedded.process_table import is_alive
from tests.marketplace.embedded.running_dev import child_of, wait_until

SLEEP = "import time; print('awake', flush=True); time.sleep(60)"
DEAF = "import signal\nfor n in (2, 3, 15): signal.signal(n, signal.SIG_IGN)\n" + SLEEP


def start(code: str, *, patience: float = 20) -> subprocess.Popen[str]:
    command = [sys.executable, guard.__file__, str(int(signal.SIGTERM)), str(patience)]
    process = subprocess.Popen(
        [*command, sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    if "awake" in code:
        assert process.stdout is not None
        assert process.stdout.readline() == "awake\n"
    return process


def test_it_works():
    with start("raise SystemExit(3)") as process:
        assert process.wait(20) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_request_to_stop_is_handed_on(number):
    with start(SLEEP) as process:
        child = child_of(process.pid)
        process.send_signal(number)
        assert process.wait(20) == -signal.SIGTERM
        assert not is_alive(child)


def test_a_child_that_does_not_stop_is_ended():
    with start(DEAF, patience=0.3) as process:
        child = child_of(process.pid)
        process.terminate()
        process.wait(20)
        wait_until(lambda: not is_alive(child))


def test_a_killed_child_is_reported_as_killed():
    with start(SLEEP) as process:
        os.kill(child_of(process.pid), signal.SIGKILL)
        assert process.wait(20) == -signal.SIGKILL


def test_a_killed_guard_takes_its_child_along():
    with start(SLEEP) as process:
        child = child_of(process.pid)
        process.kill()
        wait_until(lambda: not is_alive(child))


@pytest.mark.parametrize("code", [SLEEP, DEAF], ids=["willing", "deaf"])
def test_the_death_of_the_supervisor_ends_the_whole_group(tmp_path: Path, code: str):
    """Also where the kernel tells nobody: this supervisor does not ask for its signal."""
    supervisor = (
        "import subprocess, sys, time\n"
        f"command = [sys.executable, {guard.__file__!r}, '15', '0.5', sys.executable, '-c']\n"
        f"guard = subprocess.Popen([*command, {code!r}], start_new_session=True)\n"
        "print(guard.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", supervisor], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = {process.stdout.readline(), process.stdout.readline()}
        guarding = int((lines - {"awake\n"}).pop())
        child = child_of(guarding)
        process.kill()
        wait_until(lambda: not is_alive(guarding) and not is_alive(child))


def test_in_this_process_it_gives_the_exit_code(signals):
    before = {n: signal.getsignal(n) for n in (signal.SIGQUIT,)}
    assert guard.main(["15", "5", sys.executable, "-c", "raise SystemExit(4)"]) == 4
    for number, handler in before.items():
        signal.signal(number, handler)
