"""A real browser for the journeys: Chromium, watched for errors, and asked by axe for its findings.

A page is fine when its console is silent (a breach of the content security policy would be an error
there), nothing was fetched from elsewhere, nothing sticks out sideways, and axe finds no violation.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

AXE = Path(__file__).resolve().parent.parent / "vendor" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
_ARGUMENTS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


@contextlib.contextmanager
def open_chromium() -> Iterator[Browser]:
    """Start the system's Chromium; skip the test, saying why, where there is none."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    path = path or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    # Chromium refuses its sandbox to root; the pages it opens here are our own.
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*_ARGUMENTS, *sandbox])
        try:
            yield browser
        finally:
            browser.close()


class WatchedPage:
    """One tab on the site, with everything that went wrong in it."""

    def __init__(self, browser: Browser, url: str, **options: Any):
        self.url = url
        self.context: BrowserContext = browser.new_context(base_url=url, **options)
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(f"script: {error}"))
        self.page.on("request", self._see_request)

    def close(self) -> None:
        """Close the tab and forget its cookies."""
        self.context.close()

    def sign_in(self, name: str, password: str) -> None:
        """Go through the sign-in page."""
        self.page.goto("/accounts/sign-in")
        self.page.get_by_label("Name").fill(name)
        self.page.get_by_label("Password").fill(password)
        self.page.locator("main").get_by_role("button", name="Sign in").click()
        self.page.wait_for_url(lambda address: "/accounts/sign-in" not in address)

    def examine(self) -> list[str]:
        """Return everything that is wrong with the page as it stands now."""
        # At its end the page's sticky bars cover nothing, as axe wants it.
        self.page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
        found = [*self.complaints, *self._find_sideways(), *self._ask_axe()]
        self.complaints.clear()
        return [f"{self.page.url}: {problem}" for problem in found]

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"console {message.type}: {message.text}")

    def _see_request(self, request: Any) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.complaints.append(f"fetched from elsewhere: {request.url}")

    def _find_sideways(self) -> list[str]:
        wide, seen = self.page.evaluate(
            "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        return [f"is {wide} px wide in a window of {seen} px"] if wide > seen else []

    def _ask_axe(self) -> list[str]:
        self.page.evaluate(AXE.read_text(encoding="utf-8"))
        result = self.page.evaluate("rules => axe.run({runOnly: rules})", RULES)
        return [
            f"axe {violation['id']} at {[node['target'] for node in violation['nodes']][:3]}: "
            f"{violation['help']}"
            for violation in result["violations"]
        ]
