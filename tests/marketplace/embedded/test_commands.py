from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from marketplace.embedded import commands, site
from marketplace.embedded.commands import main, parse
from marketplace.embedded.lock import hold_lock, read_holder
from tests.marketplace.embedded.running_dev import free_port, wait_until


def test_it_works(here, capsys):
    assert main(["up", "--once", "--port", str(free_port())]) == 0
    first = capsys.readouterr().out
    assert "the demo job" not in first  # it speaks to the terminal itself
    assert "Worker                     takes jobs" in first
    assert (here / "var" / "done-by-the-worker").read_text() == "42"
    assert main(["up", "--once", "--port", str(free_port())]) == 0
    assert "Database tables            up to date" in capsys.readouterr().out


def test_it_serves_until_a_stop_is_requested(here, capsys):
    def stop() -> None:
        wait_until(
            lambda: (holder := read_holder(here / "var")) is not None and bool(holder.address)
        )
        os.kill(os.getpid(), signal.SIGTERM)

    stopper = threading.Thread(target=stop)
    stopper.start()
    code = main(["up", "--port", str(free_port())])
    stopper.join(10)
    assert code in {0, 130}  # 130: the request came before the demo job had ended
    assert "Stopping PostgreSQL" in capsys.readouterr().out


def test_a_stop_while_it_starts_is_orderly(here, capsys, monkeypatch):
    monkeypatch.setattr(site.Site, "prepare", lambda self: os.kill(os.getpid(), signal.SIGINT))
    assert main(["up", "--port", str(free_port())]) == 130
    text = capsys.readouterr().out
    assert "Stopping PostgreSQL" in text
    assert text.endswith("Stopped.\n")


def test_without_debug_the_static_files_are_collected(here, capsys, monkeypatch):
    monkeypatch.setenv("DEBUG", "false")
    (here / "static").mkdir()
    assert main(["up", "--once", "--port", str(free_port())]) == 0
    assert "collectstatic" in (here / "var" / "calls").read_text().split()


def test_a_failing_demo_job_is_an_error(here, capfd):
    manage = here / "manage.py"
    manage.write_text(
        "import sys\nif sys.argv[1] == 'demo_job': sys.exit(3)\n" + manage.read_text()
    )
    assert main(["up", "--once", "--port", str(free_port())]) == 1
    assert "manage.py demo_job ended with exit code 3" in capfd.readouterr().out


def test_a_hanging_demo_job_is_ended(here, capfd, monkeypatch):
    monkeypatch.setattr(site, "DEMO_SECONDS", 0.3)
    manage = here / "manage.py"
    hang = "import sys, time\nif sys.argv[1] == 'demo_job': time.sleep(60)\n"
    manage.write_text(hang + manage.read_text())
    assert main(["up", "--once", "--port", str(free_port())]) == 1
    assert "took longer than 0 minutes" in capfd.readouterr().out


def test_servers_of_the_user_are_used_instead_of_own_ones(here, capsys, monkeypatch, request):
    from tests.servers import _started

    urls = {type(server).__module__.rpartition(".")[2]: server for server in _started}
    if set(urls) != {"postgres", "valkey"}:
        pytest.skip("this test run did not start its servers itself")
    monkeypatch.setenv("DATABASE_URL", urls["postgres"].url.replace("/marketplace?", "/postgres?"))
    monkeypatch.setenv("CELERY_BROKER_URL", urls["valkey"].url.replace("host=0", "host=9"))
    assert main(["up", "--once", "--port", str(free_port())]) == 0
    assert not (here / "var" / "postgresql").exists()
    assert "PostgreSQL" not in capsys.readouterr().out


def test_manage_and_psql(here, capfd):
    assert main(["manage", "migrate", "--check"]) == 0
    assert main(["psql", "-At", "-c", "SELECT 40 + 2"]) == 0
    assert capfd.readouterr().out == "42\n"


def test_manage_joins_a_running_site(here, capfd, monkeypatch):
    with hold_lock(here / "var") as lock:
        lock.holder.address = "http://127.0.0.1:8123"
        lock.holder.environment = {"DATABASE_URL": "postgresql:///elsewhere"}
        lock.save()
        (here / "manage.py").write_text(
            "import os; print(os.environ['DATABASE_URL'], os.environ['PUBLIC_URL'])"
        )
        assert main(["manage", "anything"]) == 0
    assert "postgresql:///elsewhere http://127.0.0.1:8123" in capfd.readouterr().out


def test_stop_ends_what_was_left(here, capsys):
    from marketplace.embedded import postgres, valkey

    left = [postgres.start(here / "var").process, valkey.start(here / "var").process]
    assert main(["stop"]) == 0
    assert capsys.readouterr().out == "Ended what was left: PostgreSQL, Valkey.\n"
    assert [child.exit_code for child in left] == [0, 0]
    assert main(["stop"]) == 0
    assert capsys.readouterr().out == "Nothing is running.\n"


def test_reset_asks_first(here, capsys, monkeypatch):
    secret = here / "var" / "secret_key"
    secret.parent.mkdir()
    secret.write_text("x")
    answers = iter(["no\n", "yes\n"])

    class Terminal:
        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return next(answers)

    monkeypatch.setattr("sys.stdin", Terminal())
    assert main(["reset"]) == 1
    assert secret.exists()
    assert main(["reset"]) == 0
    assert not secret.exists()


def test_bench_names_what_there_is(here, capsys, monkeypatch):
    folder = here / "benchmarks"
    folder.mkdir()
    (folder / "quick.py").write_text("import sys; sys.exit(0 if '--json' in sys.argv else 5)")
    assert main(["bench", "slow"]) == 1
    assert "Choose one of: quick." in capsys.readouterr().out
    assert main(["bench", "quick"]) == 5
    assert main(["bench", "quick", "--json", str(here / "figures.json")]) == 0
    # Options that only the benchmark knows are passed on to it.
    (folder / "asked.py").write_text("import sys; sys.exit(sys.argv[1:] != ['--seeds', '3'])")
    assert main(["bench", "asked", "--seeds", "3"]) == 0


def test_a_file_of_somebody_else_is_named(here, capsys, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "/srv/other/dev.lock")

    monkeypatch.setattr(commands, "hold_lock", refuse)
    assert main(["up"]) == 1
    assert "Permission denied: /srv/other/dev.lock" in capsys.readouterr().out


def test_what_follows_a_passing_command_is_not_ours():
    options = parse(["test", "--data", "/tmp/d", "-k", "merging", "--port"])
    assert (options.data, options.arguments) == (
        Path("/tmp/d").resolve(),
        ["-k", "merging", "--port"],
    )
    options = parse(["psql", "--data=/tmp/d", "-c", "SELECT 1"])
    assert options.arguments == ["-c", "SELECT 1"]
    assert parse(["manage"]).arguments == []


def test_the_data_folder_of_the_environment_is_the_default(monkeypatch):
    monkeypatch.setenv("DATA_DIR", "/srv/site")
    assert parse(["up"]).data == Path("/srv/site")
    assert parse(["up", "--data", "/tmp/d"]).data == Path("/tmp/d").resolve()


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["up", "--port", "many"]])
def test_a_wrong_command_line_is_refused_with_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(arguments)
    assert caught.value.code == 2
    assert "usage: ./dev" in capsys.readouterr().err


def test_each_command_explains_itself(capsys):
    with pytest.raises(SystemExit) as caught:
        parse(["test", "--help"])
    assert caught.value.code == 0
    assert "pytest's own arguments" in capsys.readouterr().out
