"""The whole road in one browser, by somebody who has never been here.

Sign up, upload, publish, find, download, compose, watch, read the report, publish the result, find
its lineage, download it, and load it with stock peft. At every stop the page is examined in both
colour schemes.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, expect
from playwright.sync_api import Error as PlaywrightError

from tests.journeys.chromium import DESKTOP, WatchedPage, open_chromium
from tests.journeys.test_uploading import PICK_ANIMAL, drop
from tests.stack import PASSWORD, PROJECT, Stack

pytestmark = [pytest.mark.journey, pytest.mark.browser, pytest.mark.real_model]

EXAMPLES = PROJECT / "marketplace" / "demo" / "examples"
N_FIT, N_HELD_OUT = 5, 12
SETTLE = """() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))
  .then(() => Promise.allSettled(document.getAnimations().map((fading) => fading.finished)))
  .then(() => true)"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_chromium() as chromium:
        yield chromium


@pytest.fixture
def tab(browser: Browser, stack: Stack) -> Iterator[WatchedPage]:
    watched = WatchedPage(browser, stack.url, viewport=DESKTOP, accept_downloads=True)
    yield watched
    watched.close()


@pytest.mark.timeout(300)
def test_from_sign_up_to_a_composition_in_peft(tab: WatchedPage, tmp_path: Path):
    newcomer = f"newcomer-{secrets.token_hex(3)}"
    problems: list[str] = []

    sign_up(tab, newcomer)
    problems += examine_twice(tab)

    upload(tab, newcomer, problems)
    find(tab, "animal-picker", f"{newcomer}/animal-picker")
    problems += examine_twice(tab)
    assert_downloads_are_whole(tab, newcomer, tmp_path)

    compose(tab, newcomer, problems)
    loss = read_loss(tab, tmp_path)
    problems += examine_twice(tab)

    publish(tab, newcomer)
    problems += examine_twice(tab)
    find(tab, "vehicle-picker", f"{newcomer}/vehicle-picker")
    read_lineage(tab, newcomer)
    problems += examine_twice(tab)

    folder = download_zip(tab, f"/{newcomer}/vehicle-picker?tab=files", tmp_path / "composed")
    assert json.loads((folder / "recipe.json").read_text())["seed"] == 7
    assert reloaded_loss(folder, tmp_path) == pytest.approx(loss, abs=2e-3)
    assert problems == []


def sign_up(tab: WatchedPage, name: str) -> None:
    """From the front page to an account."""
    tab.page.goto("/")
    tab.page.get_by_role("link", name="Sign up").first.click()
    tab.page.get_by_label("Name").fill(name)
    expect(tab.page.locator("#name-check")).to_contain_text("free")
    tab.page.get_by_label("E-mail").fill(f"{name}@example.org")
    for number, field in enumerate(tab.page.locator("input[type=password]").all()):
        field.fill(PASSWORD)
        assert number < 2
    tab.page.get_by_role("button", name="Make the account").click()
    tab.page.wait_for_url(lambda address: "sign-up" not in address)


def upload(tab: WatchedPage, owner: str, problems: list[str]) -> None:
    """Drag the folder in, read what was found in it, tag it, publish."""
    tab.page.goto("/upload")
    drop(tab, PICK_ANIMAL)
    expect(tab.page.get_by_text("fits its base")).to_be_visible(timeout=30_000)
    facts = tab.page.locator("main")
    for fact in ("SmolLM2-135M-Instruct", "q_proj, v_proj", "120", "230,400"):
        expect(facts).to_contain_text(fact)
    problems += examine_twice(tab)
    tab.page.get_by_label("Name").fill("animal-picker")
    tab.page.get_by_label("Tags").fill("zoology, picking")
    expect(tab.page.get_by_text("Draft saved")).to_be_visible()
    tab.page.get_by_role("button", name="Publish", exact=True).click()
    tab.page.wait_for_url(f"**/{owner}/animal-picker")


def find(tab: WatchedPage, words: str, full_name: str) -> None:
    """Search the catalogue and open what was found."""
    tab.page.goto("/adapters")
    box = tab.page.locator("main").get_by_role("searchbox").first
    box.fill(words)
    box.press("Enter")
    tab.page.get_by_role("link", name=full_name).first.click()
    tab.page.wait_for_url(f"**/{full_name}*")


def assert_downloads_are_whole(tab: WatchedPage, owner: str, tmp_path: Path) -> None:
    """A single file and the zip bring the bytes that were uploaded."""
    weights = (PICK_ANIMAL / "adapter_model.safetensors").read_bytes()
    address = f"/{owner}/animal-picker?tab=files"
    tab.page.goto(address)
    with tab.page.expect_download() as coming:
        download_link(tab.page.locator("main"), "adapter_model.safetensors").click()
    assert coming.value.path().read_bytes() == weights
    folder = download_zip(tab, address, tmp_path / "uploaded")
    assert (folder / "adapter_model.safetensors").read_bytes() == weights
    assert (folder / "adapter_config.json").is_file()


def download_link(place: Locator, name: str) -> Locator:
    return place.get_by_role("row").filter(has_text=name).get_by_role("link").last


def download_zip(tab: WatchedPage, address: str, folder: Path) -> Path:
    tab.page.goto(address)
    with tab.page.expect_download() as coming:
        tab.page.get_by_role("link", name="Download all").click()
    with zipfile.ZipFile(coming.value.path()) as archive:
        archive.extractall(folder)
    (config,) = folder.rglob("adapter_config.json")
    return config.parent


def compose(tab: WatchedPage, owner: str, problems: list[str]) -> None:
    """Pick four adapters into the tray, paste rows, watch the job to its end."""
    picked = (f"{owner}/animal-picker", "demo/larger_animal", "demo/last_item", "demo/sms_spam")
    for name in picked:
        tab.page.goto(f"/{name}")
        tab.page.get_by_role("button", name="Add to tray").click()
        expect(tab.page.locator(".tray")).to_contain_text(name)
    tab.page.locator(".tray").get_by_role("link", name="Compose").click()
    for name in picked:
        expect(tab.page.get_by_role("region", name="Picked adapters")).to_contain_text(name)
    tab.page.get_by_label("Paste rows").fill(some_rows("fewshot", N_FIT) + some_rows("test", 12))
    tab.page.locator("#read-rows").click()
    expect(tab.page.get_by_text("17 rows in the table")).to_be_visible()
    tab.page.locator("#id_merge_method").select_option("concat")
    tab.page.locator("#id_budget").fill("24")
    tab.page.locator("#id_seed").fill("7")
    tab.page.get_by_text("More options").click()
    tab.page.locator("#id_n_fit").fill(str(N_FIT))
    tab.page.locator("#id_dtype").select_option("float32")
    tab.page.locator("#id_title").fill("Pick the vehicle")
    expect(tab.page.locator("#check")).to_contain_text("24")
    problems += examine_twice(tab)
    tab.page.locator("#check").get_by_role("button", name="Start").click()

    # Without a reload the page tells first of evaluations, then of its end.
    expect(tab.page.locator("main")).to_contain_text("Pick the vehicle")
    expect(tab.page.locator("#live")).to_have_attribute("data-state", "running", timeout=60_000)
    spent = tab.page.locator(".big-figs dd b").first
    expect(spent).not_to_have_text("0", timeout=90_000)
    problems += examine_running(tab)
    expect(tab.page.get_by_role("heading", name="Report")).to_be_visible(timeout=120_000)


def some_rows(part: str, count: int) -> str:
    lines = (EXAMPLES / f"pick_vehicle.{part}.jsonl").read_text(encoding="utf-8").splitlines()
    return "\n".join(lines[:count]) + "\n"


def read_loss(tab: WatchedPage, tmp_path: Path) -> float:
    """The report's loss of the composition on the held-out rows; the table has all four methods."""
    for method in ("Base", "Best single", "Uniform", "Composed"):
        expect(tab.page.locator("main")).to_contain_text(method)
    with tab.page.expect_download() as coming:
        tab.page.get_by_role("link", name="report.json").click()
    report = json.loads(coming.value.path().read_text())
    (row,) = (row for row in report["rows"] if row["method"] == "composed")
    assert row["held_out"]["n"] == N_HELD_OUT
    return float(row["held_out"]["loss"])


def publish(tab: WatchedPage, owner: str) -> None:
    """Name the result and put it on the shelf."""
    dialog = tab.page.locator("#publish")
    dialog.get_by_label("Name").fill("vehicle-picker")
    dialog.get_by_label("Tags").fill("vehicles")
    if not dialog.get_by_label("Licence").input_value():
        dialog.get_by_label("Licence").fill("MIT")
    dialog.get_by_role("button", name="Publish").click()
    expect(tab.page.get_by_text("Published as")).to_be_visible()
    expect(tab.page.get_by_role("link", name=f"{owner}/vehicle-picker").first).to_be_visible()


def read_lineage(tab: WatchedPage, owner: str) -> None:
    """The result names its parents, and each parent its child."""
    tab.page.goto(f"/{owner}/vehicle-picker?tab=lineage")
    expect(tab.page.get_by_role("heading", name="Parents")).to_be_visible()
    parents = tab.page.locator("main").inner_text()
    assert f"{owner}/animal-picker" in parents or "demo/" in parents
    parent = tab.page.locator("main").get_by_role("link", name="/").first
    expect(parent).to_be_visible()


def reloaded_loss(folder: Path, tmp_path: Path) -> float:
    """What stock peft makes of the downloaded folder, on the same held-out rows."""
    rows = tmp_path / "held_out.jsonl"
    rows.write_text(some_rows("test", N_HELD_OUT), encoding="utf-8")
    command = [sys.executable, "-m", "tests.journeys.reload_composition", str(folder), str(rows)]
    done = subprocess.run(
        command,
        cwd=PROJECT,
        env={**os.environ, "OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return float(json.loads(done.stdout.splitlines()[-1])["loss"])


def examine_running(tab: WatchedPage) -> list[str]:
    """Look at a page that loads itself anew when its job ends, which may be in mid-look."""
    try:
        return examine_twice(tab)
    except PlaywrightError as error:
        if "navigation" not in str(error):
            raise
        return []


def examine_twice(tab: WatchedPage) -> list[str]:
    """Look at the page in light and in dark."""
    found = tab.examine()
    for scheme in ("dark", "light"):
        tab.page.emulate_media(color_scheme=scheme)
        # Colours that are still fading from one scheme to the other are nobody's to read.
        tab.page.evaluate(SETTLE)
        found += tab.examine() if scheme == "dark" else []
    return found
