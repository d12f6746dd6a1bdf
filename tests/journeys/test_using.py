"""What an adapter's page prints is copied and run; and a gate opens for the stock client."""

from __future__ import annotations

import hashlib
import html
import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.journeys.chromium import DESKTOP, PHONE, WatchedPage, open_chromium
from tests.stack import PASSWORD, Stack

pytestmark = pytest.mark.journey

WEIGHTS = "adapter_model.safetensors"
PREPARE = """
import json
from django.utils import timezone
from marketplace.accounts.models import User
from marketplace.catalogue import services
from marketplace.uploads.models import Export, Import
from tests.factories import make_adapter, tiny_adapter_files

owner, asker = User.objects.get(username="gatekeeper"), User.objects.get(username="asker")
told = {}
readme = "---\\nlicense: mit\\nextra_gated_prompt: For **research** only.\\n---\\n# It\\n"
for name, gate in (("open", "open"), ("gated", "manual"), ("auto", "auto")):
    files = tiny_adapter_files(seed=len(name), readme=readme)
    adapter = make_adapter(owner, name, files=files)
    services.set_gate(adapter, gate, by=owner)
    told[name] = adapter.latest.weights_sha256
auto = owner.adapters.get(name="auto")
services.grant_access(auto, asker, by=owner)
services.ask_for_access(owner.adapters.get(name="gated"), User.objects.get(username="demo"),
    message="For a study of small adapters.")
hub = {"hub": "https://hub.test", "owner": owner}
ended = {"finished_at": timezone.now(), "bytes_done": 900_000, "bytes_total": 1_000_000}
failed = Import.objects.create(**hub, **ended, repo_id="org/adapter", name="adapter",
    asked_revision="main", state="failed", error="The hub broke off after 900,000 bytes.",
    error_fix="Retry: it goes on from there.")
done = Export.objects.create(**hub, **ended, repo_id="org/adapter", revision=auto.latest,
    state="succeeded", commit="c" * 40)
running = Import.objects.create(**hub, bytes_done=400_000, bytes_total=1_000_000, phase="fetching",
    repo_id="org/running", name="running", asked_revision="v2", state="running",
    lease_expires_at=timezone.now() + timezone.timedelta(days=1))
told["pages"] = [job.get_absolute_url() for job in (failed, done, running)]
print("<<" + json.dumps(told) + ">>")
"""


@pytest.fixture(scope="module")
def shelf(stack: Stack) -> dict[str, Any]:
    """An open and two gated adapters of `gatekeeper`, imports and exports, and tokens."""
    tokens = {name: stack.make_user(name) for name in ("gatekeeper", "asker")}
    printed = stack.manage("shell", "-v", "0", "-c", PREPARE)
    told = json.loads(printed.partition("<<")[2].partition(">>")[0])
    return {**told, "tokens": tokens}


@pytest.fixture
def run(stack: Stack, tmp_path: Path) -> Any:
    """Runs a program in an empty home that knows nothing of the site; `vllm` notes its words."""
    programs = tmp_path / "bin"
    programs.mkdir()
    vllm = programs / "vllm"
    vllm.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > vllm-was-asked\n')
    vllm.chmod(0o755)

    def run(*command: str, **variables: str) -> str:
        env = {
            "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "HF_HOME": str(tmp_path / "hf"),
            **variables,
        }
        done = subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout.strip()

    return run


def snippet_of(stack: Stack, name: str, client: str) -> str:
    with urllib.request.urlopen(f"{stack.url}/{name}?client={client}", timeout=30) as answer:
        page = answer.read().decode()
    (found,) = re.findall(r'<code id="snippet">(.*?)</code>', page, re.DOTALL)
    return html.unescape(found)


def sha256_of(folder: Path) -> str:
    assert json.loads((folder / "adapter_config.json").read_text())["peft_type"] == "LORA"
    return hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["open", "auto"])
def test_every_printed_snippet_runs(stack: Stack, shelf, run, tmp_path: Path, name: str):
    full_name = f"gatekeeper/{name}"
    token = {} if name == "open" else {"TOKEN": shelf["tokens"]["asker"]}

    for client in ("hf", "curl"):
        run("bash", "-ec", snippet_of(stack, full_name, client), **token)
        assert sha256_of(tmp_path / name) == shelf[name]
        (tmp_path / name).rename(tmp_path / f"by-{client}")

    run("bash", "-ec", snippet_of(stack, full_name, "vllm"), **token)
    asked = (tmp_path / "vllm-was-asked").read_text().splitlines()
    assert asked[:2] == ["serve", "tiny/base"]
    called, _, folder = asked[-1].partition("=")
    assert called == name
    assert sha256_of(Path(folder)) == shelf[name]

    for client in ("peft", "transformers"):
        # The base of these adapters is on no hub: what comes before it is run.
        fetching = re.split(r"^(?:base|model) = ", snippet_of(stack, full_name, client), flags=re.M)
        fetching = re.sub(r"^from (?:peft|transformers) .*$", "", fetching[0], flags=re.M)
        folder = run(sys.executable, "-c", f"{fetching}\nprint(adapter)", **token)
        assert sha256_of(Path(folder)) == shelf[name]


def test_the_gate_opens_for_the_stock_client(stack: Stack, shelf, run):
    told = run(
        sys.executable,
        "-c",
        f"""
import hashlib, tempfile, urllib.request
from pathlib import Path
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import GatedRepoError
owner, asker = HfApi(token={shelf["tokens"]["gatekeeper"]!r}), {shelf["tokens"]["asker"]!r}
repo = "gatekeeper/gated"

def tries():
    try:
        return Path(hf_hub_download(repo, "{WEIGHTS}", token=asker, cache_dir=tempfile.mkdtemp()))
    except GatedRepoError:
        return None

assert tries() is None
ask = urllib.request.Request(owner.endpoint + "/" + repo + "/ask-access", method="POST", data=b"",
    headers={{"Authorization": "Bearer " + asker}})
urllib.request.urlopen(ask)
assert tries() is None
def names(listed):
    return [request.username for request in listed(repo)]

assert "asker" in names(owner.list_pending_access_requests)
owner.accept_access_request(repo, "asker")
assert "asker" in names(owner.list_accepted_access_requests)
assert "asker" not in names(owner.list_pending_access_requests)
print(hashlib.sha256(tries().read_bytes()).hexdigest())
owner.cancel_access_request(repo, "asker")
assert tries() is None
owner.grant_access(repo, "asker")
assert tries()
owner.reject_access_request(repo, "asker", rejection_reason="No.")
assert tries() is None
assert names(owner.list_rejected_access_requests) == ["asker"]
try:
    HfApi(token=asker).grant_access(repo, "asker")
except Exception as error:
    assert error.response.status_code == 403, error
else:
    raise AssertionError("somebody let themselves in")
""",
        HF_ENDPOINT=stack.url,
    )
    assert told == shelf["gated"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_chromium() as chromium:
        yield chromium


VIEWS = {
    "light": {"viewport": DESKTOP, "color_scheme": "light"},
    "dark phone": {"viewport": PHONE, "color_scheme": "dark"},
}


@pytest.mark.browser
@pytest.mark.parametrize("view", VIEWS)
def test_the_pages_of_gates_and_transfers_are_sound(browser, stack: Stack, shelf, view: str):
    tab = WatchedPage(browser, stack.url, **VIEWS[view])
    problems = []
    tab.page.goto("/gatekeeper/gated")
    expect(tab.page.get_by_role("link", name="Sign in to ask for access")).to_be_visible()
    problems += tab.examine()
    tab.sign_in("gatekeeper", PASSWORD)
    pages = [f"/gatekeeper/gated?client={client}" for client in ("peft", "curl")]
    pages += ["/gatekeeper/gated/access", "/adapters/requests", "/imports"]
    pages += ["/export?adapter=gatekeeper/auto", *shelf["pages"]]
    for address in pages:
        answer = tab.page.goto(address)
        assert answer is not None
        assert answer.status == 200, address
        problems += tab.examine()
    tab.close()
    assert problems == []


@pytest.mark.browser
def test_somebody_asks_and_is_let_in(browser, stack: Stack, shelf):
    visitor, author = (WatchedPage(browser, stack.url) for _ in range(2))
    visitor.sign_in("demo", "demo demo demo")
    author.sign_in("gatekeeper", PASSWORD)
    visitor.page.goto("/gatekeeper/gated")
    expect(visitor.page.locator("#access")).to_contain_text("You asked")

    author.page.goto("/gatekeeper/gated/access")
    author.page.get_by_role("button", name="Grant demo access to gatekeeper/gated").click()
    expect(author.page.get_by_text("The request of demo is granted.")).to_be_visible()

    visitor.page.reload()
    expect(visitor.page.locator("#access")).to_contain_text("The files are open to you")
    with visitor.page.expect_download() as download:
        visitor.page.get_by_role("link", name="Download", exact=True).first.click()
    assert download.value.suggested_filename.endswith(".zip")
    assert visitor.complaints == author.complaints == []
    visitor.close()
    author.close()
