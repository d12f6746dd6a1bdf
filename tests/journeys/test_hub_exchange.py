"""One marketplace imports from another and exports to it: two sites, the stock protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.journeys.chromium import WatchedPage, open_chromium
from tests.stack import PASSWORD, Stack, running_stack

pytestmark = pytest.mark.journey


@pytest.fixture(scope="module")
def second(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A marketplace that knows the first one, and knows the same base model."""
    folder = tmp_path_factory.mktemp("second")
    settings = {"INTERNAL_HUBS": stack.url, "HUBS": ""}
    with running_stack(folder, number=10, settings=settings) as running:
        for (row,) in stack.sql("SELECT to_jsonb(b) FROM catalogue_basemodel b"):
            running.sql(
                "INSERT INTO catalogue_basemodel "
                "SELECT * FROM jsonb_populate_record(NULL::catalogue_basemodel, %s::jsonb)",
                json.dumps(row),
            )
        running.start_web()
        running.start_worker()
        yield running


def finished(site: Stack, kind: str, token: str, job: dict[str, Any]) -> dict[str, Any]:
    def probe() -> Any:
        seen = site.api("GET", f"{kind}/{job['id']}", token)
        return seen if seen["state"] in {"succeeded", "failed", "cancelled"} else None

    return site.wait_for(f"the end of {kind}", probe, seconds=60)


@pytest.mark.browser
def test_an_import_is_watched_on_its_page(stack: Stack, second: Stack):
    name = "demo/pick_animal"
    second.make_user("watcher")
    with open_chromium() as browser:
        tab = WatchedPage(browser, second.url)
        tab.sign_in("watcher", PASSWORD)
        tab.page.goto("/upload")
        tab.page.get_by_role("link", name="Import from a hub").click()
        tab.page.get_by_label("Repository").fill(f"{stack.url}/{name}")
        tab.page.get_by_label("Its name here").fill("watched")
        tab.page.get_by_role("button", name="Import").click()
        tab.page.wait_for_url("**/imports/*")

        # No reload here: the page follows the job by itself.
        link = tab.page.get_by_role("link", name="watcher/watched v1")
        expect(link).to_be_visible(timeout=60_000)
        assert tab.examine() == []
        link.click()
        expect(tab.page.locator("#use")).to_contain_text("watcher/watched")
        expect(tab.page.locator("#use-token")).to_contain_text("private")
        assert tab.complaints == []
        tab.close()


def test_an_adapter_goes_from_one_marketplace_to_the_other_and_back(stack: Stack, second: Stack):
    ((name,),) = stack.sql(
        "SELECT min(full_name) FROM catalogue_adapter WHERE latest_id > 0 AND visibility = 'public'"
    )
    token = second.make_user("importer")

    asked = {"repo_id": name, "hub": stack.url, "name": "from-afar"}
    job = finished(second, "imports", token, second.api("POST", "imports", token, asked))

    assert (job["state"], job["error"]) == ("succeeded", "")
    assert job["adapter"] == "importer/from-afar"
    query = (
        "SELECT r.weights_sha256, r.provenance FROM catalogue_revision r "
        "JOIN catalogue_adapter a ON a.id = r.adapter_id WHERE a.full_name = %s"
    )
    ((sent, _),) = stack.sql(f"{query} AND a.latest_id = r.id", name)
    ((came, provenance),) = second.sql(query, "importer/from-afar")
    assert came == sent
    assert provenance["source"] == f"{stack.url}/{name}"
    assert provenance["files"]["adapter_model.safetensors"] == sent

    again = finished(second, "imports", token, second.api("POST", "imports", token, asked))
    assert again["revision"] == job["revision"]

    theirs = stack.make_user("exporter")
    order = {
        "adapter": "importer/from-afar",
        "hub": stack.url,
        "repo_id": "exporter/back-home",
        "private": False,
        "token": theirs,
    }
    export = finished(second, "exports", token, second.api("POST", "exports", token, order))

    assert (export["state"], export["error"]) == ("succeeded", "")
    ((back, _),) = stack.sql(f"{query} AND a.latest_id = r.id", "exporter/back-home")
    assert back == sent
    for table in ("import", "export"):
        assert second.sql(f"SELECT DISTINCT sealed_token FROM uploads_{table}") == [("",)]
