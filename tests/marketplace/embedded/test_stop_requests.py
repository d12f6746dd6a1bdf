from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from marketplace.embedded.errors import Interrupted
from marketplace.embedded.stop_requests import StopRequests


@pytest.fixture
def stops(signals):
    requests = StopRequests()
    requests.listen()
    return requests


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_works(stops, number):
    stops.pause(0.01)
    os.kill(os.getpid(), number)
    with pytest.raises(Interrupted):
        stops.pause(5)


def test_a_signal_ends_the_wait_at_once(stops):
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
    started = time.monotonic()
    with pytest.raises(Interrupted):
        stops.pause(30)
    assert time.monotonic() - started < 10


def test_a_dying_child_ends_the_wait_but_is_no_request(stops):
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    started = time.monotonic()
    stops.pause(30)
    assert time.monotonic() - started < 25
    child.wait(10)


def test_stopping_is_not_stopped(stops):
    stops.shield()
    os.kill(os.getpid(), signal.SIGINT)
    stops.pause(0.01)
    stops.check()


def test_the_third_request_ends_the_process_at_once():
    code = (
        "import os, signal\n"
        "from marketplace.embedded.stop_requests import StopRequests\n"
        "stops = StopRequests(); stops.listen(); stops.shield()\n"
        "for _ in range(3): os.kill(os.getpid(), signal.SIGINT)\n"
        "import time; time.sleep(60)"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=30, check=False)
    assert done.returncode == 128 + signal.SIGINT
