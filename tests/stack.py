"""A whole site for the tests that walk whole roads: uvicorn, a worker, a database of its own.

PostgreSQL and Valkey are the run's (see `tests.servers`); everything else is started here as real
processes, so a test may kill them. The test speaks to it over HTTP, or by SQL where it must look
behind the scenes; the database of the in-process tests is another one.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg

from marketplace.embedded.processes import ChildProcess, ProcessSpec

PROJECT = Path(__file__).resolve().parent.parent
PASSWORD = "a long pass phrase"
RETRIES = 2


class Stack:
    """One running site; `close` stops it and drops its database."""

    def __init__(self, folder: Path, *, number: int, settings: Mapping[str, str] | None = None):
        self.folder = folder
        self.name = f"stack_{secrets.token_hex(4)}"
        self.admin_url = os.environ["DATABASE_URL"]
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {self.name}")  # hex digits only
        self.database_url = _with_database(self.admin_url, self.name)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        folder.mkdir(parents=True, exist_ok=True)
        self.env = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "marketplace.settings",
            "DATABASE_URL": self.database_url,
            "CELERY_BROKER_URL": _with_number(os.environ["CELERY_BROKER_URL"], number),
            "CACHE_URL": _with_number(os.environ["CACHE_URL"], number + 1),
            "DATA_DIR": str(folder / "data"),
            "PUBLIC_URL": self.url,
            "ALLOWED_HOSTS": "127.0.0.1,localhost",
            "LOG_LEVEL": "INFO",
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",
            "SIGN_UPS_PER_HOUR": "1000",
            "EMAIL_BACKEND": "django.core.mail.backends.console.EmailBackend",
            **(settings or {}),
        }
        self.processes: list[ChildProcess] = []
        self.workers: list[ChildProcess] = []
        self.web: ChildProcess | None = None
        self.manage("migrate", "--verbosity", "0")
        self.manage("collectstatic", "--noinput", "--verbosity", "0")

    # ---- processes -----------------------------------------------------------------------------

    def manage(self, *arguments: str, seconds: float = 240) -> str:
        """Run a management command to its end and return what it printed."""
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=PROJECT,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if done.returncode:
            output = f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            raise AssertionError(f"manage.py {' '.join(arguments)} failed:\n{output}")
        return done.stdout

    def start_web(self) -> ChildProcess:
        """Start uvicorn and wait until it answers /readyz."""
        command = [sys.executable, "-m", "uvicorn", "marketplace.asgi:application"]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--lifespan", "off"]
        command += ["--timeout-graceful-shutdown", "2", "--log-level", "warning"]
        self.web = self._start("web", command)
        self.web.wait_until(self._answers, seconds=60, pause=time.sleep)
        return self.web

    def start_worker(self, *, settings: Mapping[str, str] | None = None) -> ChildProcess:
        """Start a Celery worker with the beat in it, and wait until it takes tasks."""
        name = f"worker{len(self.processes)}"
        command = [sys.executable, "-m", "celery", "-A", "marketplace", "worker", "-c", "1", "-B"]
        command += ["-s", str(self.folder / f"{name}-schedule"), "-n", f"{name}@{self.name}"]
        command += ["--loglevel", "INFO"]
        worker = self._start(name, command, settings)
        worker.wait_until(lambda: " ready." in worker.new_log_text(), seconds=90, pause=time.sleep)
        self.workers.append(worker)
        return worker

    def kill(self, process: ChildProcess) -> None:
        """Kill -9 the process and everything it forked, as a machine that loses power would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.stop()

    @contextlib.contextmanager
    def frozen(self, *processes: ChildProcess) -> Iterator[None]:
        """Hold processes and everything they forked still for a while."""
        for process in processes:
            os.killpg(process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in processes:
                os.killpg(process.pid, signal.SIGCONT)

    def log_of(self, process: ChildProcess) -> str:
        """What a process has written."""
        return process.new_log_text()

    def close(self) -> None:
        """Stop every process, then drop the database."""
        for process in reversed(self.processes):
            process.stop()
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {self.name} WITH (FORCE)")

    # ---- looking behind the scenes ---------------------------------------------------------

    def sql(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement on the site's database and return its rows, if it has any."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            cursor = connection.execute(query, values)
            return list(cursor) if cursor.description else []

    def wait_for(self, what: str, probe: Callable[[], Any], *, seconds: float) -> Any:
        """Poll until `probe` gives something true; fail with the processes' logs otherwise."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = probe()
            if found:
                return found
            time.sleep(0.1)
        logs = "\n".join(f"== {p.spec.name}\n{p.new_log_text()[-2500:]}" for p in self.processes)
        raise AssertionError(f"{what} did not happen within {seconds} s\n{logs}")

    # ---- people -----------------------------------------------------------------------------

    def make_user(self, name: str) -> str:
        """Make a user with PASSWORD and return a write token for the API."""
        code = (
            "from datetime import timedelta; from django.utils import timezone;"
            "from marketplace.accounts.models import ApiToken, User;"
            f"user = User.objects.filter(username={name!r}).first() or "
            f"User.objects.create_user({name!r}, password={PASSWORD!r});"
            "print(ApiToken.issue(user=user, name='test-' + __import__('secrets').token_hex(4), "
            "scope='write', expires_at=timezone.now() + timedelta(days=1))[1])"
        )
        return self.manage("shell", "-v", "0", "-c", code).strip().splitlines()[-1]

    def api(self, method: str, path: str, token: str, body: Any = None) -> Any:
        """Call the JSON API and return the decoded answer; raise AssertionError on 4xx and 5xx.

        A 503 with Retry-After is tried again, as a client should; the idempotency key makes that
        safe. The site's log goes to stderr then, so that the reason is not lost.
        """
        request = urllib.request.Request(
            f"{self.url}/api/v1/{path}",
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={
                "Authorization": f"Bearer {token}",
                "Content-Type": "application/json",
                "Idempotency-Key": secrets.token_hex(16),
            },
        )
        for attempt in range(RETRIES + 1):
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return json.load(answer) if answer.status != 204 else None
            except urllib.error.HTTPError as error:
                text = f"{method} {path}: {error.code} {error.read().decode()[:2000]}"
                log = self.web.new_log_text()[-6000:] if self.web and error.code >= 500 else ""
                if error.code != 503 or attempt == RETRIES:
                    raise AssertionError(f"{text}\n{log}") from None
                sys.stderr.write(f"{text}\n{log}\n")
                time.sleep(min(5, int(error.headers.get("Retry-After", "1"))))
        raise AssertionError("the loop returns or raises")

    # ---- inside -----------------------------------------------------------------------------

    def _start(
        self, name: str, command: list[str], settings: Mapping[str, str] | None = None
    ) -> ChildProcess:
        env = {**self.env, **(settings or {})}
        log = self.folder / "log" / f"{name}.log"
        process = ChildProcess(ProcessSpec(name, command, log, env=env, cwd=PROJECT))
        self.processes.append(process)
        return process

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@contextlib.contextmanager
def running_stack(folder: Path, *, number: int, **options: Any) -> Iterator[Stack]:
    """Give a Stack and close it whatever happens; `number` is its own Valkey database."""
    stack = Stack(folder, number=number, **options)
    try:
        yield stack
    finally:
        stack.close()


def _with_database(url: str, name: str) -> str:
    parts = urlsplit(url)
    # `urlunsplit` drops the slashes of an empty host, which is how a socket's address is written.
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc}/{name}{query}"


def _with_number(url: str, number: int) -> str:
    for key in ("virtual_host=", "db="):
        head, found, _ = url.partition(key)
        if found:
            return f"{head}{key}{number}"
    return f"{url.rsplit('/', 1)[0]}/{number}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
