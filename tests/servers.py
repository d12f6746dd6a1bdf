"""A pytest plugin: PostgreSQL and Valkey for the whole test run, and the environment settings read.

Loaded by `-p tests.servers` before Django reads its settings. Each worker of a parallel run starts
servers of its own: tests empty the cache and count what waits in the queue.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest
from django.db import connections

from marketplace.embedded import postgres, valkey

SHARING_A_SITE = ("faults", "journeys")

_started: list[postgres.RunningPostgres | valkey.RunningValkey] = []
_folder: list[Path] = []


@pytest.hookimpl(wrapper=True, tryfirst=True)  # a wrapper, to come before pytest-django's own hook
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, None, None]:
    """Start the servers and tell Django of them, unless the environment names servers already."""
    _prepare_environment()
    if "PYTEST_XDIST_WORKER" in os.environ or not _runs_side_by_side(early_config):
        # What the tests start is not measured: it would start slower, and be killed unmeasured.
        os.environ.pop("COVERAGE_PROCESS_START", None)
        _start_servers()
    return (yield)


def _runs_side_by_side(config: pytest.Config) -> bool:
    """Tell whether this process only hands out the tests."""
    return bool(getattr(config.known_args_namespace, "numprocesses", None))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let one worker run all tests that share a site."""
    for item in items:
        for name in SHARING_A_SITE:
            if item.nodeid.startswith(f"tests/{name}/"):
                item.add_marker(pytest.mark.xdist_group(name))


def _prepare_environment() -> None:
    os.environ.setdefault("SECRET_KEY", "only-for-tests-" + "0123456789" * 5)
    os.environ.setdefault("DEBUG", "false")
    os.environ.setdefault("PUBLIC_URL", "http://testserver")
    os.environ.setdefault("ALLOWED_HOSTS", "testserver,127.0.0.1,localhost")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("LOG_LEVEL", "WARNING")
    os.environ.setdefault("EMAIL_BACKEND", "django.core.mail.backends.locmem.EmailBackend")
    os.environ.setdefault("DJANGO_ALLOW_ASYNC_UNSAFE", "true")  # playwright runs a loop in the test
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _start_servers() -> None:
    folder = Path(tempfile.mkdtemp(prefix="lm-test-"))
    folder.chmod(0o755)  # PostgreSQL runs as another user when the tests run as root
    _folder.append(folder)
    os.environ["TEST_SERVERS_FOLDER"] = str(folder)
    os.environ["DATA_DIR"] = str(folder / "data")
    (folder / "data" / "static").mkdir(parents=True)  # WhiteNoise warns where nothing is collected
    if "DATABASE_URL" not in os.environ:
        database = postgres.start(folder, durable=False)
        _started.append(database)
        os.environ["DATABASE_URL"] = database.url
    if "CELERY_BROKER_URL" not in os.environ:
        broker = valkey.start(folder, durable=False)
        _started.append(broker)
        os.environ["CELERY_BROKER_URL"] = broker.url
        os.environ["CACHE_URL"] = broker.cache_url


def pytest_unconfigure() -> None:
    """Stop what was started and leave no file behind."""
    connections.close_all()
    while _started:
        _started.pop().stop()
    while _folder:
        shutil.rmtree(_folder.pop(), ignore_errors=True)


@pytest.fixture(scope="session")
def servers_folder() -> Path:
    """The folder of this run's servers and data; it goes when the run ends."""
    return Path(os.environ["TEST_SERVERS_FOLDER"])
