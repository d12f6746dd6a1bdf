from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from marketplace.embedded import privileges
from marketplace.embedded.errors import EmbeddedError
from marketplace.embedded.privileges import (
    Account,
    can_reach,
    find_account,
    find_server_folder,
    forget_folder,
    own_folder,
    place_program,
    place_server_folder,
    place_socket_folder,
    remove_abandoned,
)

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
ME = Account("me", os.geteuid(), os.getegid())
NOBODY = Account("nobody", 65534, 65534)


@pytest.fixture
def shared(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = open_folder / "shared"
    monkeypatch.setattr(privileges, "SHARED_HOME", folder)
    monkeypatch.setattr(privileges, "THROWAWAY_HOME", folder / "throwaway")
    return folder


def test_it_works(tmp_path):
    assert place_server_folder(tmp_path / "data", ME) == tmp_path / "data"
    folder = own_folder(tmp_path / "data" / "postgresql", ME)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not ME.differs


@only_root
def test_root_is_stood_in_for():
    account = find_account()
    assert account.name in privileges.SERVER_USERS
    assert account.differs


@only_root
def test_root_on_a_machine_without_such_a_user_is_told_what_to_do(monkeypatch):
    monkeypatch.setattr(privileges, "SERVER_USERS", ("no-such-user",))
    with pytest.raises(EmbeddedError, match="does not run as root") as caught:
        find_account()
    assert "useradd" in caught.value.fix


def test_an_ordinary_user_stays_the_same(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    account = find_account()
    assert (account.name, account.uid) == ("4242", 4242)  # not listed anywhere, as in a container
    entry = pwd.getpwuid(65534)
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    assert find_account().name == entry.pw_name


@only_root
def test_data_below_a_private_folder_gets_a_place_elsewhere(open_folder, shared):
    private = open_folder / "home"
    private.mkdir(mode=0o700)
    assert not can_reach(private / "data", NOBODY)
    first = place_server_folder(private / "data", NOBODY)
    assert first.is_relative_to(shared)
    assert place_server_folder(private / "data", NOBODY) == first  # the same next time
    assert find_server_folder(private / "other", NOBODY) != first
    assert find_server_folder(open_folder, NOBODY) == open_folder


@only_root
def test_throw_away_data_of_dead_processes_is_removed(open_folder, shared):
    private = open_folder / "home"
    private.mkdir(mode=0o700)
    dead = shared / "throwaway" / "999999999-abc"
    (dead / "postgresql").mkdir(parents=True)
    mine = place_server_folder(private / "data", NOBODY, durable=False)
    assert mine.name.startswith(f"{os.getpid()}-")
    assert not dead.exists()
    own_folder(mine / "postgresql", NOBODY)
    own_folder(mine / "sockets", NOBODY)
    forget_folder(mine / "postgresql")
    assert not mine.exists()


def test_nothing_abandoned_is_nothing_to_do(shared):
    remove_abandoned()
    assert not shared.exists()


def test_sockets_lie_in_the_data_folder_where_the_path_is_short(open_folder):
    assert place_socket_folder(open_folder, ME) == open_folder / "sockets"


def test_a_long_path_gets_short_private_sockets(open_folder):
    long = open_folder / ("x" * 100)
    long.mkdir()
    folder = place_socket_folder(long, ME)
    try:
        assert len(str(folder)) < privileges.LONGEST_SOCKET_FOLDER
        assert folder.stat().st_mode & 0o777 == 0o700
        assert place_socket_folder(long, ME) == folder
    finally:
        folder.rmdir()


@only_root
def test_sockets_are_not_put_where_somebody_else_waits_for_them(open_folder):
    long = open_folder / ("x" * 100)
    long.mkdir()
    folder = place_socket_folder(long, ME)
    try:
        os.chown(folder, 4242, 4242)
        with pytest.raises(EmbeddedError, match="belongs to somebody else"):
            place_socket_folder(long, ME)
    finally:
        folder.rmdir()


@only_root
def test_programs_that_cannot_be_reached_are_copied_once(open_folder, shared):
    private = open_folder / "home"
    (private / "bin").mkdir(parents=True)
    private.chmod(0o700)
    program = private / "bin" / "server"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    parts = ("bin/server", "missing-library")
    placed = place_program(private, parts, NOBODY)
    assert placed.is_relative_to(shared)
    assert can_reach(placed / "bin" / "server", NOBODY)
    assert place_program(private, parts, NOBODY) == placed
    program.write_text("#!/bin/sh\nexit 1\n")
    os.utime(program, (1, 1))
    assert place_program(private, parts, NOBODY) != placed  # another version, another copy
    assert place_program(private, parts, ME) == private
