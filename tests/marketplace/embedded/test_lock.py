from __future__ import annotations

import os
import subprocess
import sys

import pytest

from marketplace.embedded.errors import AlreadyRunning
from marketplace.embedded.lock import FILE_NAME, hold_lock, read_holder


def test_it_works(tmp_path):
    assert read_holder(tmp_path) is None
    with hold_lock(tmp_path) as lock:
        lock.holder.address = "http://127.0.0.1:8000"
        lock.save()
        holder = read_holder(tmp_path)
        assert holder is not None
        assert holder.pid == os.getpid()
        assert holder.address == "http://127.0.0.1:8000"
    assert read_holder(tmp_path) is None


def test_a_second_holder_is_refused_and_told_where_the_first_one_is(tmp_path):
    with hold_lock(tmp_path) as lock:
        lock.holder.address = "http://127.0.0.1:8123"
        lock.save()
        with pytest.raises(AlreadyRunning, match="8123") as caught, hold_lock(tmp_path):
            pytest.fail("two holders of one lock")
        assert f"./dev stop --data {tmp_path}" in caught.value.fix
        assert read_holder(tmp_path) == lock.holder  # untouched by the refusal


def test_a_killed_holder_frees_the_lock_and_leaves_word_of_its_children(tmp_path):
    code = (
        "import os, pathlib, signal\n"
        "from marketplace.embedded.lock import hold_lock\n"
        f"with hold_lock(pathlib.Path({str(tmp_path)!r})) as lock:\n"
        "    lock.holder.children = {'worker': 4242}; lock.save()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False, timeout=30)
    with hold_lock(tmp_path) as lock:
        assert lock.previous is not None
        assert lock.previous.children == {"worker": 4242}


def test_an_ordered_end_leaves_no_word(tmp_path):
    with hold_lock(tmp_path) as lock:
        lock.holder.children = {"worker": 4242}
        lock.save()
    with hold_lock(tmp_path) as lock:
        assert lock.previous is None


def test_a_damaged_file_is_no_obstacle(tmp_path):
    (tmp_path / FILE_NAME).write_text("{not json")
    with hold_lock(tmp_path) as lock:
        assert lock.previous is None


def test_only_the_owner_may_read_it(tmp_path):
    """It holds the addresses of the servers, which may contain a password."""
    with hold_lock(tmp_path):
        assert (tmp_path / FILE_NAME).stat().st_mode & 0o077 == 0
