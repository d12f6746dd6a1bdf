"""The JSON API of imports and exports: everything of one's own, nothing of others'."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from django.test import Client
from django.utils import timezone

from marketplace.accounts.models import User
from marketplace.uploads import tasks
from marketplace.uploads.models import Export, Import
from marketplace.uploads.services import ExportRequest, ImportRequest, start_export, start_import
from tests.factories import make_adapter

SECRET = "hf_" + "s3cret" * 5
HUB = "http://hub.test:8080"
API = "/api/v1"


@pytest.fixture(autouse=True)
def _one_hub_no_queue(monkeypatch, settings) -> None:
    monkeypatch.setattr(tasks.run_transfer, "delay", lambda *_: None)
    settings.HUBS, settings.INTERNAL_HUBS = [HUB], []


@pytest.fixture
def adapter(owner: User) -> Any:
    return make_adapter(owner=owner, name="mine")


@pytest.fixture
def jobs(owner: User, adapter) -> dict[str, Import | Export]:
    export = ExportRequest(adapter.latest, "org/there", token=SECRET)
    return {
        "import": start_import(owner, ImportRequest(repo="org/adapter", token=SECRET)),
        "export": start_export(owner, export),
    }


def post(client: Client, path: str, body: Any, token: dict[str, str]) -> Any:
    return client.post(f"{API}/{path}", body, content_type="application/json", headers=token)


def test_it_works(client: Client, token, adapter):
    asked = {"repo_id": "org/adapter", "revision": "v2", "name": "here", "token": SECRET}
    answer = post(client, "imports", asked, token)
    job = answer.json()
    assert answer.status_code == 202
    assert (job["hub"], job["repo_id"], job["asked_revision"]) == (HUB, "org/adapter", "v2")
    assert (job["name"], job["state"], job["adapter"]) == ("here", "queued", None)
    assert job["url"] == f"/imports/{job['id']}"
    assert SECRET not in answer.content.decode()
    seen = client.get(f"{API}/imports/{job['id']}", headers=token).json()
    assert seen == job


def test_an_export_is_begun(client: Client, token, adapter):
    asked = {"adapter": "ann/mine", "repo_id": "org/there", "token": SECRET, "private": False}
    answer = post(client, "exports", asked, token)
    job = answer.json()
    assert answer.status_code == 202
    assert (job["adapter"], job["revision"]) == ("ann/mine", adapter.latest.oid)
    assert (job["private"], job["url"]) == (False, f"/exports/{job['id']}")
    assert SECRET not in answer.content.decode()
    seen = client.get(f"{API}/exports/{job['id']}", headers=token).json()
    assert seen == job


def test_every_problem_of_a_request_is_told(client: Client, token, adapter):
    wrong = {"repo_id": "none", "name": "-x", "token": "two words"}
    told = post(client, "imports", wrong, token)
    assert told.status_code == 400
    assert {"repo_id", "token"} <= set(told.json()["problems"])
    wrong = {"adapter": "ann/mine", "repo_id": "none", "hub": "http://x", "token": " two words"}
    told = post(client, "exports", wrong, token)
    assert told.status_code == 400
    assert {"repo_id", "hub", "token"} <= set(told.json()["problems"])
    missing = post(client, "exports", {"adapter": "ann/mine"}, token)
    assert {"repo_id", "token"} <= set(missing.json()["problems"])


@pytest.mark.parametrize("asked", ["ann/none", "bob/theirs", "nothing"])
def test_only_ones_own_adapters_are_exported(client: Client, token, stranger, asked):
    make_adapter(owner=stranger, name="theirs")
    body = {"adapter": asked, "repo_id": "org/there", "token": SECRET}
    assert post(client, "exports", body, token).status_code == 404
    assert not Export.objects.exists()


def test_a_version_that_is_not_there_is_not_exported(client: Client, token, adapter):
    body = {"adapter": "ann/mine", "revision": "v9", "repo_id": "org/there", "token": SECRET}
    assert post(client, "exports", body, token).status_code == 404


def test_too_many_have_to_wait(client: Client, token, jobs, settings):
    settings.MAX_TRANSFERS_PER_HOUR = 2
    assert post(client, "imports", {"repo_id": "org/other"}, token).status_code == 429


def test_the_lists_hold_ones_own(client: Client, token, jobs, stranger):
    start_import(stranger, ImportRequest(repo="org/secret"))
    for kind, job in jobs.items():
        answer = client.get(f"{API}/{kind}s", headers=token).json()
        assert [row["id"] for row in answer["results"]] == [str(job.pk)]


@pytest.mark.parametrize("kind", ["import", "export"])
class TestOne:
    def test_it_is_stopped_and_tried_again(self, client: Client, token, jobs, kind):
        path = f"{kind}s/{jobs[kind].pk}"
        for _ in range(2):
            stopped = post(client, f"{path}/cancel", {}, token)
            assert (stopped.status_code, stopped.json()["state"]) == (200, "cancelled")
        jobs[kind].refresh_from_db()
        assert jobs[kind].sealed_token == ""
        again = post(client, f"{path}/retry", {"token": SECRET}, token)
        assert (again.status_code, again.json()["state"]) == (200, "queued")
        assert SECRET not in again.content.decode()
        assert post(client, f"{path}/retry", {}, token).status_code == 409

    def test_a_wrong_token_is_told(self, client: Client, token, jobs, kind):
        jobs[kind].move(frm="queued", to="failed", finished_at=timezone.now())
        path = f"{kind}s/{jobs[kind].pk}/retry"
        answer = post(client, path, {"token": "two words"}, token)
        assert answer.status_code == 400
        assert "token" in answer.json()["problems"]

    @pytest.mark.parametrize("part", ["", "/cancel", "/retry"])
    def test_others_find_nothing(self, client: Client, token, stranger, jobs, kind, part):
        client.force_login(stranger)
        for pk in (jobs[kind].pk, uuid4()):
            path = f"{API}/{kind}s/{pk}{part}"
            assert (client.post(path) if part else client.get(path)).status_code == 404
        jobs[kind].refresh_from_db()
        assert jobs[kind].state == "queued"

    @pytest.mark.parametrize("part", ["", "/cancel", "/retry"])
    def test_nobody_is_asked_to_sign_in(self, client: Client, jobs, kind, part):
        path = f"{API}/{kind}s/{jobs[kind].pk}{part}"
        assert (client.post(path) if part else client.get(path)).status_code == 401


def test_a_reading_token_begins_nothing(client: Client, owner, adapter):
    from datetime import timedelta

    from marketplace.accounts.models import ApiToken

    expires_at = timezone.now() + timedelta(days=1)
    text = ApiToken.issue(user=owner, name="reader", scope="read", expires_at=expires_at)[1]
    reader = {"Authorization": f"Bearer {text}"}
    assert post(client, "imports", {"repo_id": "org/adapter"}, reader).status_code == 403
    assert client.get(f"{API}/imports", headers=reader).status_code == 200
