"""What the clients are told of one adapter: its document, its tree and its paths."""

from __future__ import annotations

import json

import pytest

from marketplace.catalogue.models import Adapter
from tests.factories import make_adapter, make_blob, make_revision

API = "/api/models/alice/adapter"
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def adapter(alice):
    adapter = make_adapter(alice, "adapter", language="en", tags=["mine"])
    adapter.latest.files.create(path="notes/deep/a.txt", blob=make_blob(b"a"))
    return adapter


def test_it_works(client, adapter):
    info = client.get(API).json()
    assert info["id"] == info["modelId"] == "alice/adapter"
    assert info["sha"] == adapter.latest.oid
    assert {"peft", "lora", "base_model:adapter:tiny/base", "license:apache-2.0", "mine"} <= set(
        info["tags"]
    )
    assert info["createdAt"].endswith("Z")
    assert (info["private"], info["gated"], info["disabled"]) == (False, False, False)
    assert {file["rfilename"] for file in info["siblings"]} >= {WEIGHTS, "notes/deep/a.txt"}
    assert not any("size" in file for file in info["siblings"])


def test_sizes_and_hashes_come_when_asked_for(client, adapter):
    siblings = {
        file["rfilename"]: file for file in client.get(f"{API}?blobs=True").json()["siblings"]
    }
    blob = adapter.latest.files.get(path=WEIGHTS).blob
    assert siblings[WEIGHTS]["lfs"] == {
        "sha256": blob.sha256,
        "size": blob.size,
        "pointerSize": len(f"{blob.size}") + 125,
    }
    small = siblings["notes/deep/a.txt"]
    assert small == {"rfilename": "notes/deep/a.txt", "size": 1, "blobId": make_blob(b"a").git_sha1}


def test_only_the_fields_that_were_asked_for_come(client, adapter):
    told = client.get(f"{API}?expand=likes&expand=baseModels&expand=unknown").json()
    assert set(told) == {"_id", "id", "modelId", "likes", "baseModels"}
    assert told["baseModels"] == {"relation": "adapter", "models": [{"id": "tiny/base"}]}


def test_a_named_revision_is_described(client, adapter):
    first, second = adapter.latest.oid, make_revision(adapter, rank=8).oid
    assert client.get(API).json()["sha"] == second
    for name in (first, "v1", f"{first}"):
        assert client.get(f"{API}/revision/{name}").json()["sha"] == first
    missing = client.get(f"{API}/revision/nowhere")
    assert (missing.status_code, missing["X-Error-Code"]) == (404, "RevisionNotFound")


def test_a_gate_is_told(client, adapter):
    Adapter.objects.filter(pk=adapter.pk).update(gated="manual")
    assert client.get(API).json()["gated"] == "manual"


def test_a_draft_says_what_there_is(client, alice, as_alice):
    Adapter.objects.create(owner=alice, name="begun")
    answer = client.get("/api/models/alice/begun?expand=config&expand=siblings", headers=as_alice)
    assert answer.json().keys() == {"_id", "id", "modelId"}
    everything = client.get("/api/models/alice/begun", headers=as_alice).json()
    assert everything["tags"] == []
    assert "safetensors" not in everything


def test_a_tree_is_listed_by_folders_or_whole(client, adapter):
    def paths(query):
        return [entry["path"] for entry in client.get(f"{API}/tree/main{query}").json()]

    assert paths("") == ["README.md", "adapter_config.json", WEIGHTS, "notes"]
    assert paths("/notes") == ["notes/deep"]
    assert paths("/notes%2Fdeep?recursive=true") == ["notes/deep/a.txt"]
    assert set(paths("?recursive=1")) > {"notes", "notes/deep", "notes/deep/a.txt"}
    entries = {entry["path"]: entry for entry in client.get(f"{API}/tree/main").json()}
    assert entries["notes"]["type"] == "directory"
    assert len(entries["notes"]["oid"]) == 40
    assert entries[WEIGHTS]["lfs"]["oid"] == adapter.latest.files.get(path=WEIGHTS).blob_id


def test_a_folder_that_is_missing_is_no_entry(client, adapter):
    missing = client.get(f"{API}/tree/main/absent")
    assert (missing.status_code, missing["X-Error-Code"]) == (404, "EntryNotFound")
    assert missing["X-Repo-Commit"] == adapter.latest.oid


def test_each_entry_names_the_commit_that_changed_it_last(client, adapter):
    kept = {file.path: file.blob for file in adapter.latest.files.all()}
    second = make_revision(adapter, rank=8, title="Second")
    second.files.create(path="notes/deep/a.txt", blob=kept["notes/deep/a.txt"])
    second.files.create(path="notes/b.txt", blob=make_blob(b"b"))
    entries = client.get(f"{API}/tree/main?recursive=true&expand=true").json()
    titles = {entry["path"]: entry["lastCommit"]["title"] for entry in entries}
    assert titles["notes/deep/a.txt"] == titles["notes/deep"] == "Publish"
    assert titles["notes/b.txt"] == titles["notes"] == titles[WEIGHTS] == "Second"


def test_a_large_tree_comes_in_pages(client, adapter, monkeypatch):
    monkeypatch.setattr("marketplace.hub.views.trees.PAGE", 4)
    first = client.get(f"{API}/tree/main?recursive=true")
    address = first["Link"].partition("<")[2].partition(">")[0]
    assert adapter.latest.oid in address  # the pages are of one revision
    rest = client.get("/api" + address.partition("/api")[2])
    assert len(first.json()) == 4
    assert len({entry["path"] for entry in first.json() + rest.json()}) == 6
    monkeypatch.setattr("marketplace.hub.views.trees.PAGE", 1)
    inside = client.get(f"{API}/tree/main/notes?recursive=true")
    assert "/notes?" in inside["Link"]
    assert client.get(f"{API}/tree/main?cursor=x").status_code == 400


def test_paths_are_asked_for_as_a_form_or_as_json(client, adapter):
    wanted = ["notes/", WEIGHTS, "absent"]
    form = client.post(f"{API}/paths-info/main", {"paths": wanted, "expand": "true"})
    assert [entry["path"] for entry in form.json()] == ["notes", WEIGHTS]
    assert form.json()[0]["lastCommit"]["id"] == adapter.latest.oid
    for body in ({"paths": wanted}, {"paths": WEIGHTS, "expand": True}):
        answer = client.post(f"{API}/paths-info/main", json.dumps(body), "application/json")
        assert answer.json()[-1]["path"] == WEIGHTS


@pytest.mark.parametrize("body", ["[]", "{", '{"paths": 3}', '{"paths": [3]}'])
def test_other_bodies_are_refused_with_an_example(client, adapter, body):
    answer = client.post(f"{API}/paths-info/main", body, "application/json")
    assert answer.status_code == 400
    assert "README.md" in answer["X-Error-Message"]


def test_there_is_an_end_to_how_many_paths_are_asked_for(client, adapter):
    body = json.dumps({"paths": [str(number) for number in range(1001)]})
    assert client.post(f"{API}/paths-info/main", body, "application/json").status_code == 400
