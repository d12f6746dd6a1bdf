from __future__ import annotations

import os
import signal
import subprocess
import sys

from marketplace.embedded.process_table import (
    command_of,
    end_process,
    is_alive,
    runs_program,
)

SLEEP = "import time; print('awake', flush=True); time.sleep(60)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"


def start(code: str, *arguments: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_it_works():
    with start(SLEEP, "some words") as process:
        assert is_alive(process.pid)
        assert "some words" in command_of(process.pid)
        assert end_process(process.pid, first=signal.SIGTERM, seconds=10)
        assert not is_alive(process.pid)  # a zombie until it is waited for
        process.wait(10)
    assert not is_alive(process.pid)
    assert command_of(process.pid) == ""


def test_a_process_that_ignores_the_request_is_killed():
    with start(DEAF) as process:
        assert end_process(process.pid, first=signal.SIGTERM, seconds=0.2)
        assert process.wait(10) == -signal.SIGKILL


def test_a_suspended_process_is_stopped_without_a_kill():
    with start(SLEEP) as process:
        os.kill(process.pid, signal.SIGSTOP)
        assert end_process(process.pid, first=signal.SIGTERM, seconds=10)
        assert process.wait(10) == -signal.SIGTERM


def test_what_it_leaves_in_its_group_goes_with_it():
    code = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; "
    code += f"time.sleep(60)'], stdout=subprocess.DEVNULL); {SLEEP}"
    with start(code) as process:
        children = subprocess.run(
            ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
        )
        grandchild = int(children.stdout)
        assert end_process(process.pid, first=signal.SIGTERM, seconds=10)
    for _ in range(500):
        if not is_alive(grandchild):
            break
    assert not is_alive(grandchild)


def test_a_program_is_known_by_its_name_and_not_by_the_files_it_has_open():
    with start(SLEEP, "/etc/postgres.py", "below /srv/data") as process:
        name = os.path.basename(sys.executable)  # noqa: PTH119
        assert runs_program(process.pid, {name})
        assert runs_program(process.pid, {name}, words="/srv/data")
        assert not runs_program(process.pid, {name}, words="/srv/other")
        assert not runs_program(process.pid, {"postgres"})
        process.kill()


def test_somebody_elses_process_is_alive_too():
    assert is_alive(1)
