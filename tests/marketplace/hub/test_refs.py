"""Branches, tags, version labels and the history, as the clients read and change them."""

from __future__ import annotations

import json

import pytest

from marketplace.catalogue import services
from marketplace.catalogue.models import Ref
from tests.factories import make_adapter, make_revision

CONFIG = "adapter_config.json"


@pytest.fixture
def adapter(alice):
    return make_adapter(alice, "adapter")


def send(client, method, path, headers, body=None):
    call = getattr(client, method)
    return call(
        f"/api/models/alice/adapter{path}",
        json.dumps(body or {}),
        content_type="application/json",
        headers=headers,
    )


def where(client, name, **options) -> str:
    """The commit that a name leads to."""
    response = client.head(f"/alice/adapter/resolve/{name}/{CONFIG}", **options)
    assert response.status_code == 200, response.headers
    return response["X-Repo-Commit"]


def test_it_works(client, adapter, as_alice):
    first = adapter.latest.oid
    assert send(client, "post", "/branch/side", as_alice).status_code == 200
    tag = {"tag": "one", "message": "the first"}
    assert send(client, "post", "/tag/main", as_alice, tag).status_code == 200
    second = make_revision(adapter, rank=8).oid
    refs = client.get("/api/models/alice/adapter/refs").json()
    assert {ref["name"]: ref["targetCommit"] for ref in refs["branches"]} == {
        "main": second,
        "side": first,
    }
    assert [(ref["ref"], ref["targetCommit"]) for ref in refs["tags"]] == [("refs/tags/one", first)]
    assert "pullRequests" not in refs
    commits = client.get("/api/models/alice/adapter/commits/main").json()
    assert [commit["id"] for commit in commits] == [second, first]
    assert commits[0]["authors"] == [{"user": "alice"}]


def test_a_tag_comes_before_a_version_of_the_same_name_on_the_wire_and_on_the_pages(
    client, adapter
):
    first = adapter.latest
    second = make_revision(adapter, rank=8)
    page = "/alice/adapter/revisions/v1"
    assert where(client, "v1") == first.oid
    assert first.short_oid in client.get(page).content.decode()
    Ref.objects.create(adapter=adapter, kind=Ref.Kind.TAG, name="v1", revision=second)
    assert where(client, "v1") == where(client, "v2") == second.oid
    shown = client.get(page).content.decode()
    assert second.short_oid in shown
    revision = adapter.revisions.at("v1")
    assert revision == second


@pytest.mark.parametrize("kind", ["branch", "tag"])
def test_a_ref_is_made_once_and_deleted_once(client, adapter, as_alice, kind):
    def make():
        if kind == "tag":
            return send(client, "post", "/tag/main", as_alice, {"tag": "one"}).status_code
        return send(client, "post", "/branch/one", as_alice).status_code

    assert [make(), make()] == [200, 409]
    gone = [send(client, "delete", f"/{kind}/one", as_alice).status_code for _ in range(2)]
    assert gone == [200, 404]


@pytest.mark.parametrize(
    "name", ["..", "a..b", "x.lock", "%00", "-a", "0" * 40, "a" * 121, "ends.", "caf%C3%A9"]
)
def test_a_name_that_git_would_not_take_is_refused(client, adapter, as_alice, name):
    answer = send(client, "post", f"/branch/{name}", as_alice)
    assert answer.status_code == 400
    assert "not allowed" in answer["X-Error-Message"]


def test_main_stays(client, adapter, as_alice):
    answer = send(client, "delete", "/branch/main", as_alice)
    assert answer.status_code == 403
    assert "main cannot be deleted" in answer["X-Error-Message"]


def test_a_ref_needs_something_to_lead_to(client, adapter, as_alice):
    start = {"startingPoint": "nowhere"}
    answer = send(client, "post", "/branch/side", as_alice, start)
    assert (answer.status_code, answer["X-Error-Code"]) == (404, "RevisionNotFound")
    bad = {"tag": "one", "message": "\x00"}
    assert send(client, "post", "/tag/main", as_alice, bad).status_code == 400
    assert send(client, "delete", "/branch/%00", as_alice).status_code == 404


def test_others_change_no_refs(client, adapter, as_bob):
    assert send(client, "post", "/branch/side", as_bob).status_code == 403
    assert send(client, "post", "/branch/side", {}).status_code == 401


def test_a_long_history_comes_in_pages(client, adapter, monkeypatch):
    monkeypatch.setattr("marketplace.hub.views.refs.PAGE", 2)
    newer = [make_revision(adapter, rank=rank).oid for rank in (3, 2)]
    oids = [*reversed(newer), adapter.latest.oid]
    first = client.get("/api/models/alice/adapter/commits/main?expand[]=formatted")
    assert [commit["id"] for commit in first.json()] == oids[:2]
    assert first.json()[0]["formatted"]["title"] == "Publish"
    address = first["Link"].partition("<")[2].partition(">")[0]
    rest = client.get("/api" + address.partition("/api")[2])
    assert [commit["id"] for commit in rest.json()] == oids[2:]
    assert "Link" not in rest


def test_a_branch_whose_revisions_are_all_yanked_leads_nowhere(client, adapter, alice, as_alice):
    services.yank_revision(adapter.latest, reason="broken", by=alice)
    refs = client.get("/api/models/alice/adapter/refs?include_prs=1", headers=as_alice).json()
    assert refs["branches"] == []
    assert refs["pullRequests"] == []
    info = client.get("/api/models/alice/adapter", headers=as_alice)
    assert info.status_code == 200
    assert "sha" not in info.json()
