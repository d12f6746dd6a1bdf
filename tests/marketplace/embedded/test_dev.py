from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import psycopg
import pytest

from marketplace.embedded.lock import read_holder
from marketplace.embedded.privileges import Account, can_reach
from tests.marketplace.embedded.running_dev import (
    RunningDev,
    all_gone,
    child_of,
    run_dev,
    serving,
    wait_until,
)

pytestmark = pytest.mark.fault
PROJECT = Path(__file__).resolve().parents[3]
NOBODY = Account("nobody", 65534, 65534)
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def count_seeds(running: RunningDev) -> int:
    holder = read_holder(running.data)
    assert holder is not None
    with psycopg.connect(holder.environment["DATABASE_URL"]) as connection:
        row = connection.execute("SELECT count(*) FROM kept").fetchone()
    assert row is not None
    return int(row[0])


def test_it_works(miniature):
    running = RunningDev(miniature, "--once")
    assert running.wait() == 0, running.text()
    assert "the demo job's table: 42" in running.text()
    assert "Everything has stopped; the data is kept." in running.text()
    calls = (running.data / "calls").read_text().split()
    assert calls == ["migrate", "seed_demo", "demo_job"]


def test_it_serves_until_it_is_stopped_and_keeps_the_data(miniature):
    with serving(miniature) as first:
        with urllib.request.urlopen(f"http://127.0.0.1:{first.port}/", timeout=5) as answer:
            assert answer.status == 200
        started = first.children()
        assert set(started) == {"PostgreSQL", "Valkey", "web server", "worker"}
        first.process.send_signal(signal.SIGINT)
        assert first.wait() == 0
    text = first.text()
    assert text.index("Stopping web server and worker") < text.index("Stopping Valkey")
    assert text.index("Stopping Valkey") < text.index("Stopping PostgreSQL")
    assert all_gone(started)
    with serving(miniature) as second:
        assert count_seeds(second) == 1
    assert (second.data / "calls").read_text().split().count("migrate") == 1


def test_a_kill_leaves_nothing_running_and_nothing_is_lost(miniature):
    with serving(miniature) as first:
        started = first.children()
        first.process.kill()
        first.wait()
        wait_until(lambda: all_gone(started), 20)
    with serving(miniature) as second:
        assert count_seeds(second) == 1


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_in_the_middle_of_a_task_goes_too(miniature, how):
    with serving(miniature) as running:
        assert run_dev(miniature, "manage", "keep_busy")[0] == 0
        busy = running.data / "busy"
        wait_until(lambda: busy.exists() and busy.read_text() != "")
        started = running.children() | {"pool": int(busy.read_text())}
        running.process.send_signal(how)
        running.wait()
        wait_until(lambda: all_gone(started), 40)


def test_a_server_that_survived_its_supervisor_is_replaced(miniature):
    """As on systems where the kernel does not tell the children of their parent's death."""
    with serving(miniature) as first:
        started = first.children()
        for pid in started.values():
            os.kill(pid, signal.SIGSTOP)  # a stopped process does not act on the kernel's signal
        first.process.kill()
        first.wait()
    orphans = {name: pid for name, pid in started.items() if name in {"PostgreSQL", "Valkey"}}
    for pid in set(started.values()) - set(orphans.values()):
        os.kill(pid, signal.SIGKILL)
        os.kill(pid, signal.SIGCONT)
    assert not all_gone(orphans)
    with serving(miniature) as second:
        assert all_gone(orphans)
        assert count_seeds(second) == 1


@pytest.mark.parametrize("name", ["PostgreSQL", "Valkey", "web server", "worker"])
def test_a_dying_child_takes_the_rest_down_and_its_log_is_shown(miniature, name):
    with serving(miniature) as running:
        started = running.children()
        guarded = child_of(started[name]) if name in {"web server", "worker"} else started[name]
        os.kill(guarded, signal.SIGKILL)
        assert running.wait() == 1
    assert f"{name} ended by signal SIGKILL" in running.text()
    assert "The log is" in running.text()
    assert all_gone(started)


def test_a_second_start_says_where_the_first_one_serves(miniature):
    with serving(miniature) as running:
        code, text = run_dev(miniature, "up", "--port", "1")
    assert code == 1
    assert f"already running at http://127.0.0.1:{running.port}" in text
    assert f"(process {running.process.pid})" in text


def test_two_sites_run_side_by_side(miniature, open_folder):
    folders = [str(open_folder / name) for name in ("one", "two")]
    with serving(miniature, "--data", folders[0]) as one:
        with serving(miniature, "--data", folders[1]) as two:
            assert one.port != two.port
            assert count_seeds(one) == count_seeds(two) == 1
        assert one.process.poll() is None


def test_stop_from_elsewhere(miniature):
    with serving(miniature) as running:
        started = running.children()
        code, text = run_dev(miniature, "stop")
        assert code == 0, text
        assert running.wait() == 0
    assert all_gone(started)
    assert run_dev(miniature, "stop") == (0, "Nothing is running.\n")


def test_manage_and_psql_use_the_running_servers_or_their_own(miniature):
    with serving(miniature):
        code, text = run_dev(miniature, "psql", "-At", "-c", "SELECT count(*) FROM kept")
        assert (code, text.strip()) == (0, "1")
    code, text = run_dev(miniature, "psql", "-At", "-c", "SELECT count(*) + 41 FROM kept")
    assert code == 0
    assert text.startswith("42\n")
    code, text = run_dev(miniature, "manage", "fail")
    assert code == 1
    assert "it went wrong on purpose" in text


def test_reset_discards_the_data_only_when_it_is_meant(miniature):
    RunningDev(miniature, "--once").wait()
    assert (miniature / "var" / "postgresql").exists()
    code, text = run_dev(miniature, "reset")
    assert code == 1
    assert "./dev reset --yes" in text
    assert (miniature / "var" / "postgresql").exists()
    assert run_dev(miniature, "reset", "--yes")[0] == 0
    assert not (miniature / "var" / "postgresql").exists()


def test_a_taken_port_is_told_before_anything_slow_happens(miniature):
    with serving(miniature) as running:
        other = str(miniature / "other")
        code, text = run_dev(miniature, "up", "--data", other, "--port", str(running.port))
    assert code == 1
    assert f"./dev up --port {running.port + 1}" in text
    assert not (miniature / "other" / "postgresql").exists()


def test_a_failing_step_says_what_to_do_and_shows_the_log(miniature):
    manage = miniature / "manage.py"
    refusal = "import sys\nif sys.argv[1] == 'seed_demo':\n    sys.exit('no adapters')\n"
    manage.write_text(refusal + manage.read_text())
    running = RunningDev(miniature)
    assert running.wait() == 1
    assert "Demo catalogue: the command failed." in running.text()
    assert "./dev manage seed_demo" in running.text()
    assert "    no adapters" in running.text()
    assert "Stopping PostgreSQL" in running.text()


def test_a_path_too_long_for_a_socket_works(miniature):
    data = miniature / ("long-" * 20) / "data"
    running = RunningDev(miniature, "--once", "--data", str(data))
    assert running.wait() == 0, running.text()


@only_root
def test_root_below_a_private_home(miniature):
    miniature.parent.chmod(0o700)
    with serving(miniature) as running:
        assert count_seeds(running) == 1
        uids = {
            name: Path(f"/proc/{pid}").stat().st_uid for name, pid in running.children().items()
        }
        assert uids["PostgreSQL"] != 0
        assert uids["Valkey"] != 0
    assert run_dev(miniature, "reset", "--yes")[0] == 0


@only_root
@pytest.mark.skipif(
    not can_reach(Path(sys.executable).resolve(), NOBODY),
    reason="this Python lies where an ordinary user cannot run it",
)
def test_an_ordinary_user(open_folder, miniature):
    subprocess.run(["chown", "-R", "nobody", str(open_folder)], check=True, timeout=20)
    private = open_folder / "home"
    private.mkdir(mode=0o700)
    os.chown(private, 65534, 65534)
    data = str(private / "data")
    with serving(miniature, "--data", data, user="nobody", group="nogroup", extra_groups=[]):
        assert (Path(data) / "postgresql").stat().st_uid != 0


def test_another_python_is_told_what_to_install(tmp_path):
    """Runs the file as it would run under another version, with no python3.11 on the PATH."""
    code = (
        "import sys, runpy; sys.version_info = (3, 9, 2, 'final', 0)\n"
        f"runpy.run_path({str(PROJECT / 'dev')!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PATH": str(tmp_path)},
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "./dev needs Python 3.11; this is Python 3.9" in done.stderr


def test_dev_imports_nothing_that_must_be_installed():
    code = (
        "import sys, types; package = types.ModuleType('marketplace')\n"
        f"package.__path__ = [{str(PROJECT / 'marketplace')!r}]\n"
        "sys.modules['marketplace'] = package\n"
        "import marketplace.embedded.commands"
    )
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, timeout=60)
