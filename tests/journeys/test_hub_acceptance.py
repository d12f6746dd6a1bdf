"""The acceptance transcript of the hub's protocol, with today's client and two older ones.

Each client is one clean process with an empty HF_HOME that walks through `hub_transcript`;
docs/hub.md says which item is shown by which test.
"""

from __future__ import annotations

import functools
import http.server
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from marketplace.embedded.processes import ChildProcess, ProcessSpec
from tests.factories import tiny_adapter_folder
from tests.stack import PROJECT, Stack, free_port

pytestmark = [pytest.mark.journey, pytest.mark.timeout(600)]
TODAY, OLDER = "newest", ("0.36.2", "1.5.0")
# Kept between runs: making one takes longer than its whole transcript.
CLIENTS = PROJECT / "var" / "hub-clients"
ITEMS = ("3", "4", "7", "8", "9", "10", "11", "12", "13", "14", "16", "delete")
WALKS = [(TODAY, item) for item in ("1", *ITEMS, "15")]
WALKS += [(version, item) for version in OLDER for item in ITEMS]
MANY = 120
PREPARE = """
import json
from datetime import timedelta
from django.utils import timezone
from marketplace.accounts.models import ApiToken
from marketplace.catalogue.models import Adapter
from tests.factories import make_base_model, make_user

def token(user, scope):
    return ApiToken.issue(
        user=user, name=scope, scope=scope, expires_at=timezone.now() + timedelta(days=1)
    )[1]

make_base_model()
bob, pages = make_user("wire-bob"), make_user("wire-pages")
Adapter.objects.bulk_create(
    Adapter(owner=pages, name=f"a{number}", full_name=f"wire-pages/a{number}")
    for number in range(%(many)d)
)
told = {"bob": bob.username, "other": token(bob, "write"),
        "pages": pages.username, "pages_token": token(pages, "read")}
for version in %(versions)r:
    owner = make_user("wire-" + version.replace(".", ""))
    told[version] = {
        "owner": owner.username, "write": token(owner, "write"), "read": token(owner, "read")
    }
print("<<" + json.dumps(told) + ">>")
"""


class _Origin(http.server.SimpleHTTPRequestHandler):
    """Serves the blobs, and remembers what it was told."""

    seen: list[dict[str, str]]

    def do_GET(self) -> None:
        self.seen.append({name.lower(): value for name, value in self.headers.items()})
        super().do_GET()

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


@pytest.fixture(scope="module")
def origin(stack: Stack) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Another origin with the site's large files, and the headers of what was asked of it."""
    seen: list[dict[str, str]] = []
    handler = type("Origin", (_Origin,), {"seen": seen})
    folder = str(Path(stack.env["DATA_DIR"]) / "blobs")
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=folder)
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def offloading(stack: Stack, origin: tuple[str, list[dict[str, str]]]) -> Iterator[str]:
    """The same site once more, whose large files are at another origin."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "marketplace.asgi:application"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--lifespan", "off"]
    settings = {
        "DJANGO_SETTINGS_MODULE": "tests.journeys.offloading_settings",
        "OTHER_ORIGIN": origin[0],
        "PYTHONPATH": str(PROJECT),
    }
    log = stack.folder / "log" / "offloading.log"
    process = ChildProcess(
        ProcessSpec("offloading", command, log, env={**stack.env, **settings}, cwd=PROJECT)
    )

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2):
                return True
        except OSError:
            return False

    process.wait_until(answers, seconds=90, pause=time.sleep)
    yield f"http://127.0.0.1:{port}"
    process.stop()


@pytest.fixture(scope="module")
def people(stack: Stack) -> dict[str, Any]:
    """An owner with two tokens for each client, a stranger, and somebody with many adapters."""
    code = PREPARE % {"many": MANY, "versions": [TODAY, *OLDER]}
    printed = stack.manage("shell", "-c", code)
    told: dict[str, Any] = json.loads(printed.partition("<<")[2].partition(">>")[0])
    return told


def _python_of(version: str) -> Path:
    """Return the Python of a client's own environment, which is made where it is missing."""
    if version == TODAY:
        return Path(sys.executable)
    folder = CLIENTS / version
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        install = [str(python), "-m", "pip", "install", "-q", f"huggingface_hub=={version}"]
        for command in ([sys.executable, "-m", "venv", "--clear", str(folder)], install):
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
            if done.returncode:
                pytest.skip(f"huggingface_hub {version} cannot be installed: {done.stderr[-500:]}")
        (folder / "ready").touch()
    return python


@pytest.fixture(scope="module")
def walk(
    stack: Stack,
    people: dict[str, Any],
    offloading: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], dict[str, str]]:
    """Walk a client through the whole transcript, once, and return what went wrong by item."""

    @functools.cache
    def run(version: str) -> dict[str, str]:
        python = _python_of(version)
        home = tmp_path_factory.mktemp(f"client-{version}")
        bad = tiny_adapter_folder(home / "bad")
        bad_files = [f"not allowed {number} {'x' * 60}.pkl" for number in range(12)]
        for name in bad_files:
            (bad / name).write_bytes(b"pickle")
        shelf = {
            **people,
            **people[version],
            "pages_count": MANY,
            "offloading": offloading,
            "with_commands": version == TODAY,
            "folder": str(tiny_adapter_folder(home / "adapter", rank=4)),
            "changed": str(tiny_adapter_folder(home / "changed", rank=8)),
            "bad": str(bad),
            "bad_files": bad_files,
        }
        told = home / "shelf.json"
        told.write_text(json.dumps(shelf))
        done = subprocess.run(
            [python, "-W", "ignore", PROJECT / "tests" / "journeys" / "hub_transcript.py", told],
            cwd=home,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(home),
                "HF_HOME": str(home / "hf"),
                "HF_ENDPOINT": stack.url,
                "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                "HF_HUB_DISABLE_TELEMETRY": "1",
            },
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        outcome: dict[str, str] = json.loads(told.with_suffix(".outcome.json").read_text())
        return outcome

    return run


@pytest.mark.parametrize(("version", "item"), WALKS)
def test_it_works(walk, version, item):
    """The item holds with the client."""
    assert walk(version)[item] == ""


@pytest.mark.parametrize("version", [TODAY, *OLDER])
def test_another_origin_is_told_no_token(walk, origin, version):
    walk(version)
    assert origin[1]
    assert not any("authorization" in headers for headers in origin[1])
