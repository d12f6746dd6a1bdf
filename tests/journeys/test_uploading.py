"""Uploading in a real browser: a folder is sent, refused or accepted, and published."""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.journeys.chromium import DESKTOP, PHONE, WatchedPage, open_chromium
from tests.stack import PASSWORD, PROJECT, Stack

pytestmark = [pytest.mark.journey, pytest.mark.browser]

VIEWS = {
    "light": {"viewport": DESKTOP, "color_scheme": "light"},
    "dark phone": {"viewport": PHONE, "color_scheme": "dark"},
}
PICK_ANIMAL = PROJECT / "marketplace" / "demo" / "adapters" / "pick_animal"
# Hands files to the page as a drop from the desktop does.
DROP = """([files, selector]) => {
  const carried = new DataTransfer();
  for (const [name, content] of files) {
    const bytes = Uint8Array.from(atob(content), (sign) => sign.charCodeAt(0));
    carried.items.add(new File([bytes], name));
  }
  const zone = document.querySelector(selector);
  for (const kind of ["dragenter", "dragover", "drop"]) {
    const options = { dataTransfer: carried, bubbles: true, cancelable: true };
    zone.dispatchEvent(new DragEvent(kind, options));
  }
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_chromium() as chromium:
        yield chromium


@pytest.fixture
def tab(browser: Browser, stack: Stack, request: pytest.FixtureRequest) -> Iterator[WatchedPage]:
    """A signed-in tab of somebody who has uploaded nothing yet."""
    name = f"uploader-{secrets.token_hex(3)}"
    stack.make_user(name)
    watched = WatchedPage(browser, stack.url, **VIEWS[getattr(request, "param", "light")])
    watched.sign_in(name, PASSWORD)
    yield watched
    watched.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a training run leaves behind: the adapter among other files."""
    run = tmp_path / "run"
    shutil.copytree(PICK_ANIMAL, run)
    (run / "optimizer.pt").write_bytes(b"not wanted")
    shutil.copytree(PICK_ANIMAL, run / "checkpoint-10")
    return run


def drop(tab: WatchedPage, folder: Path) -> None:
    files = [
        (path.name, base64.b64encode(path.read_bytes()).decode())
        for path in sorted(folder.iterdir())
        if path.is_file()
    ]
    tab.page.evaluate(DROP, [files, "[data-drop]"])


def choose(tab: WatchedPage, folder: Path) -> None:
    with tab.page.expect_file_chooser() as chooser:
        tab.page.get_by_role("button", name="Choose a folder").click()
    chooser.value.set_files(folder)


@pytest.mark.parametrize("tab", VIEWS, indirect=True)
def test_it_works(tab: WatchedPage, folder: Path):
    tab.page.goto("/upload")
    assert tab.examine() == []
    choose(tab, folder)

    expect(tab.page.get_by_text("fits its base")).to_be_visible(timeout=30_000)
    expect(tab.page.get_by_text("all 120 agree with the base")).to_be_visible()
    assert tab.examine() == []
    # The card is prefilled from the README; the optimiser was left at home.
    expect(tab.page.get_by_label("Licence")).to_have_value("MIT")
    expect(tab.page.get_by_label("Received files")).not_to_contain_text("optimizer")

    tab.page.get_by_label("Name").fill("from-a-browser")
    expect(tab.page.get_by_text("Draft saved")).to_be_visible()
    tab.page.reload()
    expect(tab.page.get_by_label("Name")).to_have_value("from-a-browser")
    tab.page.get_by_label("Samples").fill("sofa, komodo, easel => komodo")
    tab.page.get_by_role("button", name="Publish", exact=True).click()

    expect(tab.page.get_by_text("v1.")).to_be_visible()
    assert tab.page.url.endswith("/from-a-browser")
    assert tab.complaints == []


@pytest.mark.parametrize("tab", VIEWS, indirect=True)
def test_a_refused_upload_is_mended_on_the_same_page(tab: WatchedPage, folder: Path):
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"r": 16}))
    tab.page.goto("/upload")
    drop(tab, folder)

    expect(tab.page.get_by_text("but the tensors have rank 4")).to_be_visible(timeout=30_000)
    assert tab.examine() == []
    draft = tab.page.url
    tab.page.get_by_label("Summary").fill("Kept over the refusal")
    expect(tab.page.get_by_text("Draft saved")).to_be_visible()

    (folder / "adapter_config.json").write_text(json.dumps(config))
    drop(tab, folder)

    expect(tab.page.get_by_text("fits its base")).to_be_visible(timeout=30_000)
    assert tab.page.url == draft
    expect(tab.page.get_by_label("Summary")).to_have_value("Kept over the refusal")
    tab.page.goto("/upload")
    expect(tab.page.get_by_role("heading", name="Your drafts")).to_be_visible()
    assert tab.examine() == []


def test_a_broken_connection_is_taken_up_again(tab: WatchedPage, folder: Path):
    broken: list[str] = []

    def break_once(route):
        if broken:
            route.continue_()
        else:
            broken.append(route.request.url)
            route.abort("connectionreset")

    tab.page.route("**/files/adapter_model.safetensors*", break_once)
    tab.page.goto("/upload")
    drop(tab, folder)

    expect(tab.page.get_by_text("fits its base")).to_be_visible(timeout=30_000)
    assert len(broken) == 1


def test_what_is_no_adapter_is_not_even_sent(tab: WatchedPage, tmp_path: Path):
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    tab.page.goto("/upload")

    drop(tab, tmp_path)

    expect(tab.page.get_by_role("alert")).to_contain_text("holiday.jpg")
    assert tab.page.url.endswith("/upload")
    assert tab.examine() == []


def test_a_giant_is_refused_before_it_is_sent(stack: Stack):
    token = stack.make_user(f"giant-{secrets.token_hex(3)}")
    draft = stack.api("POST", "uploads", token, {})["id"]
    address = f"/api/v1/uploads/{draft}/files/adapter_model.safetensors"

    with speak(stack, f"PUT {address}", token, "Content-Length: 10000000000") as connection:
        assert read_status(connection) == 413
    with speak(stack, "POST /upload", token, "Content-Length: 10000000000") as connection:
        assert read_status(connection) == 413


def test_a_giant_in_pieces_is_cut_at_the_limit(stack: Stack):
    token = stack.make_user(f"pieces-{secrets.token_hex(3)}")
    draft = stack.api("POST", "uploads", token, {})["id"]
    address = f"/api/v1/uploads/{draft}/files/README.md"
    piece = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"

    with speak(stack, f"PUT {address}", token, "Transfer-Encoding: chunked") as connection:
        sent = 0
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):  # 64 MB, of which README.md may have half of one
                connection.sendall(piece)
                sent += 1
        assert sent < 1000

    assert stack.api("GET", f"uploads/{draft}", token)["files"] == []


def speak(stack: Stack, line: str, token: str, header: str) -> socket.socket:
    """Begin a request by hand, to lie about its length."""
    connection = socket.create_connection(("127.0.0.1", stack.port), 20)
    head = (
        f"{line} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n{header}\r\n\r\n"
    )
    connection.sendall(head.encode())
    return connection


def read_status(connection: socket.socket) -> int:
    return int(connection.recv(1000).split()[1])


def test_a_plain_form_does_it_as_well(browser: Browser, stack: Stack):
    name = f"plain-{secrets.token_hex(3)}"
    stack.make_user(name)
    tab = WatchedPage(browser, stack.url, java_script_enabled=False)
    tab.sign_in(name, PASSWORD)
    tab.page.goto("/upload")
    tab.page.get_by_label("Files of the adapter").set_input_files(sorted(PICK_ANIMAL.iterdir()))
    tab.page.get_by_role("button", name="Upload and check").click()
    expect(tab.page.get_by_text("fits its base")).to_be_visible(timeout=30_000)
    tab.page.get_by_label("Name").fill("plain")
    tab.page.get_by_role("button", name="Publish", exact=True).click()

    tab.page.wait_for_url(f"**/{name}/plain")
    assert tab.complaints == []
    tab.close()
