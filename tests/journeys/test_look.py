"""Every page of the site, light and dark, wide and on a phone: no error, no findings.

Both schemes use the same rules at both widths, so each page is looked at twice: light on a desktop
and dark on a phone.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.journeys.chromium import DESKTOP, PHONE, WatchedPage, open_chromium
from tests.stack import Stack

pytestmark = [pytest.mark.journey, pytest.mark.browser]

VIEWS = {
    "light": {"viewport": DESKTOP, "color_scheme": "light"},
    "dark phone": {"viewport": PHONE, "color_scheme": "dark"},
}
PUBLIC_PAGES = (
    "/",
    "/adapters",
    "/adapters?q=pik_animl",
    "/adapters?q=nothing-has-this-name",
    "/adapters?mode=examples",
    "/adapters?fits=demo/pick_animal&sort=trending",
    "/base-models",
    "/demo",
    "/demo/pick_animal",
    "/demo/pick_animal?tab=files",
    "/demo/pick_animal?tab=evaluation",
    "/demo/pick_animal?tab=lineage",
    "/demo/pick_animal?tab=versions",
    "/docs",
    "/docs/adapters",
    "/docs/api",
    "/docs/operations",
    "/api/v1/docs",
    "/accounts/sign-in",
    "/accounts/sign-up",
    "/accounts/reset",
)
OWN_PAGES = (
    "/",
    "/compose",
    "/jobs",
    "/upload",
    "/import",
    "/exports",
    "/export?adapter=demo/pick_animal",
    "/demo/pick_animal/access",
    "/demo",
    "/demo/pick_animal/edit",
    "/demo/pick_animal/delete",
    "/demo/pick_animal/revisions/v1/yank",
    "/accounts/settings",
    "/accounts/tokens",
    "/accounts/password",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_chromium() as chromium:
        yield chromium


@pytest.fixture
def tab(browser: Browser, stack: Stack, request: pytest.FixtureRequest) -> Iterator[WatchedPage]:
    watched = WatchedPage(browser, stack.url, **VIEWS[getattr(request, "param", "light")])
    yield watched
    watched.close()


@pytest.mark.parametrize("tab", VIEWS, indirect=True)
def test_public_pages_are_sound(tab: WatchedPage):
    problems = []
    for address in PUBLIC_PAGES:
        answer = tab.page.goto(address)
        assert answer is not None
        assert answer.status == 200, address
        problems += tab.examine()

    assert problems == []


@pytest.mark.parametrize("tab", VIEWS, indirect=True)
def test_the_owners_pages_are_sound(tab: WatchedPage):
    tab.sign_in("demo", "demo demo demo")

    problems = []
    for address in OWN_PAGES:
        answer = tab.page.goto(address)
        assert answer is not None
        assert answer.status == 200, address
        problems += tab.examine()

    assert problems == []


def test_a_missing_page_is_a_page(tab: WatchedPage):
    answer = tab.page.goto("/demo/there-is-no-such-adapter")

    assert answer is not None
    assert answer.status == 404
    tab.complaints.clear()  # the browser itself reports the status as an error
    assert tab.examine() == []
    expect(tab.page.get_by_role("heading", level=1)).to_have_text(
        "There is nothing at this address"
    )


def test_the_theme_is_chosen_by_hand_and_kept(tab: WatchedPage):
    tab.page.goto("/docs")
    tab.page.get_by_label("Colours").click()
    tab.page.get_by_role("button", name="Dark").click()

    expect(tab.page.locator("html")).to_have_attribute("data-theme", "dark")
    assert tab.page.url.endswith("/docs")
    tab.page.goto("/adapters")
    expect(tab.page.locator("html")).to_have_attribute("data-theme", "dark")
    assert tab.examine() == []


def test_the_account_menu_opens_and_closes_by_keyboard(tab: WatchedPage):
    tab.sign_in("demo", "demo demo demo")
    menu = tab.page.locator("details.pop")
    summary = menu.locator("summary")

    summary.focus()
    tab.page.keyboard.press("Enter")
    expect(menu.get_by_text("Your adapters")).to_be_visible()
    assert tab.examine() == []
    tab.page.keyboard.press("Escape")

    expect(menu.get_by_text("Your adapters")).to_be_hidden()
    expect(summary).to_be_focused()


def test_the_first_tab_stop_leads_to_the_content(tab: WatchedPage):
    tab.page.goto("/adapters")

    tab.page.keyboard.press("Tab")
    expect(tab.page.get_by_text("Skip to content")).to_be_focused()
    tab.page.keyboard.press("Enter")

    assert tab.page.url.endswith("#main")


def test_a_copy_button_says_what_it_did(tab: WatchedPage, stack: Stack):
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=stack.url)
    tab.page.goto("/demo/pick_animal")

    tab.page.get_by_role("button", name="Copy the name").click()

    expect(tab.page.locator("#toasts")).to_contain_text("Copied.")
    assert tab.page.evaluate("navigator.clipboard.readText()") == "demo/pick_animal"
    assert tab.examine() == []


def test_pages_work_without_script(browser: Browser, stack: Stack):
    tab = WatchedPage(browser, stack.url, java_script_enabled=False)
    tab.page.goto("/")
    tab.page.get_by_role("searchbox", name="Search adapters").fill("animal")
    tab.page.keyboard.press("Enter")

    expect(tab.page.get_by_role("link", name="demo/pick_animal")).to_be_visible()
    assert tab.complaints == []
    tab.close()
