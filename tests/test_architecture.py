"""The rules of docs/architecture.md that no linter knows."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
SOURCES = sorted(
    path
    for folder in ("composer", "marketplace")
    for path in (PROJECT / folder).rglob("*.py")
    if "migrations" not in path.parts
)
ROADS = {
    "bad_input",
    "fuzzing",
    "inspection_process",
    "packaging",
    "peft_adapters",
    "public_names",
    "reload",
}  # tests of several modules together
LONGEST_FILE = 450  # lines; five are over the 400 we aim for
FORBIDDEN_NAMES = {"utils", "helpers", "common", "core", "misc", "base"}
TOP_LEVEL = {
    "marketplace", "composer", "templates", "static", "tests", "manage.py", "requirements.txt",
    "docker-compose.yml", "dev", "Makefile", "pyproject.toml", "requirements-local.txt",
    "requirements-dev.txt", "constraints.txt", "Dockerfile", ".dockerignore",
    ".pre-commit-config.yaml", ".ci", "benchmarks", "docs", "README.md", "CHANGELOG.md", "LICENSE",
    ".gitignore", ".gitattributes", "examples",
}  # fmt: skip
LIGHT_MODULES = ["errors", "limits", "examples", "intervals", "matching", "progress", "report",
                 "inspection", "compatibility", "safetensors_header", "pickle_reader"]  # fmt: skip


def test_it_works():
    """Every source module says what it is for."""
    silent = [
        str(path.relative_to(PROJECT))
        for path in SOURCES
        if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def test_the_top_level_is_the_agreed_one():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert {line.split("/")[0] for line in listed.stdout.splitlines()} - TOP_LEVEL == set()


def test_no_module_has_a_name_that_says_nothing():
    vague = [path for path in SOURCES if path.stem in FORBIDDEN_NAMES]
    assert vague == []


def test_no_source_file_grows_beyond_reading():
    long = {
        str(path.relative_to(PROJECT)): lines
        for path in SOURCES
        if (lines := len(path.read_text().splitlines())) > LONGEST_FILE
    }
    assert long == {}


def test_tests_mirror_the_sources():
    """A test module is named for the module it tests (or for a page or a road)."""
    stray = []
    for path in (PROJECT / "tests" / "composer").glob("test_*.py"):
        subject = path.stem.removeprefix("test_")
        package = PROJECT / "composer"
        module = next(package.rglob(f"{subject}.py"), None)  # at the top or in a package
        if not (module or (package / subject).is_dir() or subject in ROADS):
            stray.append(path.name)
    assert stray == []


def _modules_after(code: str) -> list[str]:
    program = f"{code}\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    return list(json.loads(done.stdout.strip().splitlines()[-1]))


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_the_light_half_of_composer_loads_no_torch(module):
    loaded = set(_modules_after(f"import composer.{module}"))
    assert loaded & {"torch", "transformers", "peft", "nevergrad", "django"} == set()


def test_the_web_process_loads_no_torch():
    code = "import marketplace.asgi, django.urls; django.urls.get_resolver().url_patterns"
    loaded = set(_modules_after(code))
    assert "marketplace.compositions.urls" in loaded
    assert loaded & {"torch", "transformers", "peft", "nevergrad"} == set()


def test_every_setting_is_documented():
    read = re.findall(
        r'read_(?:text|flag|number|list|folder|database)\(\s*"([A-Z0-9_]+)"',
        (PROJECT / "marketplace" / "settings.py").read_text(),
    )
    documented = (PROJECT / "docs" / "settings.md").read_text()
    assert [name for name in sorted(set(read)) if f"`{name}`" not in documented] == []


def test_the_project_speaks_of_itself_alone():
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    words = re.compile(r"/roo[t]/|/wor[k]/|pypi[.]org|[.]pythonhosted[.]|registry[.]npmjs")
    found = []
    for name in filter(None, listed):
        path = PROJECT / name
        if path.suffix in {".safetensors", ".png", ".svg", ".jsonl"} or "vendor" in path.parts:
            continue
        if (
            path.is_file()
            and path != Path(__file__)
            and words.search(path.read_text(errors="ignore"))
        ):
            found.append(name)
    assert found == []
