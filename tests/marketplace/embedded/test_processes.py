from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from marketplace.embedded import processes
from marketplace.embedded.errors import MissingServer, ServerFailed
from marketplace.embedded.process_table import is_alive
from marketplace.embedded.processes import (
    ChildProcess,
    ProcessSpec,
    describe_exit,
    read_tail,
    run_in_foreground,
)
from tests.marketplace.embedded.running_dev import wait_until

SLEEP = "import time; time.sleep(60)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf'); {SLEEP}"


def start(folder: Path, code: str, *, stop_seconds: float = 20) -> ChildProcess:
    command = [sys.executable, "-u", "-c", code]
    log = folder / "log" / "thing.log"
    return ChildProcess(ProcessSpec("thing", command, log, stop_seconds=stop_seconds))


def has_ended(child: ChildProcess) -> Callable[[], bool]:
    return lambda: child.exit_code is not None


def test_it_works(tmp_path):
    child = start(tmp_path, "print('ready'); " + SLEEP)
    child.wait_until(lambda: "ready" in child.new_log_text(), seconds=30, pause=time.sleep)
    assert child.exit_code is None
    assert child.stop() == -signal.SIGTERM


def test_a_second_start_reads_only_its_own_part_of_the_log(tmp_path):
    for word in ("first", "second"):
        child = start(tmp_path, f"print({word!r})")
        child.wait_until(has_ended(child), seconds=30, pause=time.sleep)
    assert child.new_log_text() == "second\n"
    assert "first" in read_tail(tmp_path / "log" / "thing.log")


def test_a_large_log_is_put_aside(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "LARGEST_LOG", 10)
    for word in ("first", "second"):
        child = start(tmp_path, f"print({word!r})")
        child.wait_until(has_ended(child), seconds=30, pause=time.sleep)
    assert "first" in (tmp_path / "log" / "thing.log.1").read_text()
    assert "first" not in (tmp_path / "log" / "thing.log").read_text()


def test_a_child_that_ends_while_starting_is_reported_with_its_log(tmp_path):
    child = start(tmp_path, "raise SystemExit('no disk')")
    with pytest.raises(ServerFailed, match="thing ended with exit code 1 while starting") as caught:
        child.wait_until(lambda: False, seconds=30, pause=time.sleep)
    assert caught.value.log is not None
    assert "no disk" in read_tail(caught.value.log)


def test_a_child_that_ends_between_two_looks_at_it_is_looked_at_again(tmp_path):
    """A short command may succeed just after `ready` saw it run: that is no failure."""
    child = start(tmp_path, SLEEP.replace("60", "0.2"))

    def ready() -> bool:
        seen = child.exit_code
        wait_until(has_ended(child))
        return seen == 0

    child.wait_until(ready, seconds=30, pause=time.sleep)


def test_a_child_that_is_never_ready_is_given_up(tmp_path):
    child = start(tmp_path, SLEEP)
    with pytest.raises(ServerFailed, match="not ready within 0 seconds"):
        child.wait_until(lambda: False, seconds=0.1, pause=time.sleep)
    child.stop()


def test_a_child_that_does_not_stop_is_killed(tmp_path):
    child = start(tmp_path, DEAF, stop_seconds=0.2)
    child.wait_until(lambda: "deaf" in child.new_log_text(), seconds=30, pause=time.sleep)
    assert child.stop() == -signal.SIGKILL


def test_what_a_child_left_behind_is_killed_with_it(tmp_path):
    code = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', "
    code += f"{SLEEP!r}]); print(p.pid); {SLEEP}"
    child = start(tmp_path, code)
    wait_until(lambda: child.new_log_text().endswith("\n"))
    grandchild = int(child.new_log_text())
    child.stop()
    wait_until(lambda: not is_alive(grandchild))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells the children on Linux only")
def test_a_child_does_not_outlive_its_supervisor(tmp_path):
    code = (
        "import sys, time; from pathlib import Path\n"
        "from marketplace.embedded.processes import ChildProcess, ProcessSpec\n"
        f"command = [sys.executable, '-c', {SLEEP!r}]\n"
        f"child = ChildProcess(ProcessSpec('thing', command, Path({str(tmp_path)!r}) / 'log'))\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    with supervisor:
        assert supervisor.stdout is not None
        child = int(supervisor.stdout.readline())
        assert is_alive(child)
        supervisor.kill()
    wait_until(lambda: not is_alive(child))


def test_the_shell_of_the_user_does_not_reach_the_servers(tmp_path, monkeypatch):
    monkeypatch.setenv("PGDATA", "/somewhere/else")
    child = start(tmp_path, "import os; print('PGDATA' in os.environ, 'PATH' in os.environ)")
    wait_until(lambda: child.exit_code is not None)
    assert child.new_log_text() == "False True\n"


def test_a_foreground_command_gives_its_exit_code_and_gets_the_terminals_signals(tmp_path):
    command = [sys.executable, "-c", "import os; raise SystemExit(int(os.environ['CODE']))"]
    before = signal.getsignal(signal.SIGINT)
    assert run_in_foreground(command, env=os.environ | {"CODE": "7"}, cwd=tmp_path) == 7
    assert signal.getsignal(signal.SIGINT) is before


def test_a_missing_foreground_command_is_named(tmp_path):
    with pytest.raises(MissingServer, match="no-such-program"):
        run_in_foreground(["no-such-program"], env=os.environ, cwd=tmp_path)


def test_exits_in_words():
    assert describe_exit(3) == "with exit code 3"
    assert describe_exit(-9) == "by signal SIGKILL"
    assert describe_exit(None) == "without an exit code"


def test_the_tail_of_a_missing_log_is_empty(tmp_path):
    assert read_tail(tmp_path / "none.log") == ""


def test_a_child_of_the_terminal_has_no_log(tmp_path):
    child = ChildProcess(ProcessSpec("thing", [sys.executable, "-c", "pass"], None))
    wait_until(lambda: child.exit_code == 0)
    assert child.new_log_text() == ""
