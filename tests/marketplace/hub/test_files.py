"""`resolve`: what a client learns from HEAD, and what GET sends."""

from __future__ import annotations

import hashlib

import pytest
from asgiref.sync import async_to_sync
from django.core.files.storage import Storage
from django.test import AsyncClient

from marketplace.catalogue import services
from marketplace.catalogue.models import AccessRequest, Adapter, AdapterAlias, Ref, Revision
from marketplace.catalogue.tasks import add_up_downloads
from tests.factories import make_adapter, make_blob, make_revision, tiny_adapter_files
from tests.marketplace.hub.conftest import bearer

WEIGHTS = "adapter_model.safetensors"
FILES = tiny_adapter_files(seed=7)


@pytest.fixture
def adapter(alice):
    adapter = make_adapter(alice, "adapter", files=FILES)
    adapter.latest.files.create(path="notes/read me#1?.txt", blob=make_blob(b"hello"))
    return adapter


def body(response) -> bytes:
    return b"".join(response.streaming_content)


def make_draft(adapter: Adapter, files: dict[str, bytes], *, branch: str = "main") -> Revision:
    """An incomplete push on a branch, as the publishing side leaves it."""
    ref = Ref.objects.filter(adapter=adapter, name=branch).first()
    draft = Revision.objects.create(
        adapter=adapter,
        oid=hashlib.sha1(repr(sorted(files)).encode(), usedforsecurity=False).hexdigest(),
        parent=ref.revision if ref else None,
        title="A part of it",
        origin=Revision.Origin.HUB,
    )
    for path, content in files.items():
        draft.files.create(path=path, blob=make_blob(content))
    Ref.objects.update_or_create(adapter=adapter, name=branch, defaults={"revision": draft})
    return draft


def test_it_works(client, adapter):
    response = client.get(f"/alice/adapter/resolve/main/{WEIGHTS}")
    assert response.status_code == 200
    assert body(response) == FILES[WEIGHTS]


def test_head_tells_all_that_a_client_needs_of_a_large_file(client, adapter):
    response = client.head(f"/alice/adapter/resolve/main/{WEIGHTS}")
    sha256 = hashlib.sha256(FILES[WEIGHTS]).hexdigest()
    assert response.status_code == 200
    assert response["ETag"] == response["X-Linked-Etag"] == f'"{sha256}"'
    assert response["X-Linked-Size"] == response["Content-Length"] == str(len(FILES[WEIGHTS]))
    assert response["X-Repo-Commit"] == adapter.latest.oid
    assert response["Accept-Ranges"] == "bytes"
    assert "X-Xet-Hash" not in response
    assert response["X-Request-Id"]
    assert response.content == b""


def test_a_small_file_is_named_as_git_would(client, adapter):
    response = client.head("/alice/adapter/resolve/main/adapter_config.json")
    content = FILES["adapter_config.json"]
    git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    assert response["ETag"] == f'"{git}"'
    assert "X-Linked-Etag" not in response


def test_the_common_way_takes_one_query(client, adapter, django_assert_num_queries):
    for revision in ("main", adapter.latest.oid):
        with django_assert_num_queries(1):
            assert client.head(f"/alice/adapter/resolve/{revision}/{WEIGHTS}").status_code == 200


def test_a_path_is_decoded_once(client, adapter):
    response = client.get("/alice/adapter/resolve/main/notes/read%20me%231%3F.txt")
    assert body(response) == b"hello"


def test_a_part_is_sent_for_a_range(client, adapter):
    response = client.get(f"/alice/adapter/resolve/main/{WEIGHTS}", headers={"Range": "bytes=2-5"})
    assert response.status_code == 206
    assert response["Content-Range"] == f"bytes 2-5/{len(FILES[WEIGHTS])}"
    assert response["X-Repo-Commit"] == adapter.latest.oid
    assert body(response) == FILES[WEIGHTS][2:6]


def test_a_range_past_the_end_is_416(client, adapter):
    response = client.get(
        f"/alice/adapter/resolve/main/{WEIGHTS}", headers={"Range": "bytes=999999-"}
    )
    assert response.status_code == 416


def test_only_a_whole_download_of_the_weights_counts(client, adapter):
    weights = f"/alice/adapter/resolve/main/{WEIGHTS}"
    client.head(weights)
    body(client.get(weights, headers={"Range": "bytes=0-5"}))
    body(client.get("/alice/adapter/resolve/main/README.md"))
    add_up_downloads()
    adapter.refresh_from_db()
    assert adapter.downloads == 0
    body(client.get(weights))
    add_up_downloads()
    adapter.refresh_from_db()
    assert adapter.downloads == 1


def test_it_streams_under_asgi(adapter):
    async def read() -> bytes:
        response = await AsyncClient().get(f"/alice/adapter/resolve/main/{WEIGHTS}")
        assert response.is_async
        return b"".join([chunk async for chunk in response.streaming_content])

    assert async_to_sync(read)() == FILES[WEIGHTS]


def test_a_proxy_in_front_sends_the_bytes(client, adapter, settings):
    settings.X_ACCEL_REDIRECT = "/protected/"
    response = client.get(f"/alice/adapter/resolve/main/{WEIGHTS}")
    assert response["X-Accel-Redirect"].startswith("/protected/sha256/")
    assert response["X-Repo-Commit"] == adapter.latest.oid


class SigningStorage(Storage):
    """An object storage that gives signed addresses."""

    def url(self, name):
        return f"https://bucket.example.org/{name}?signature=1"


class BareStorage(Storage):
    """An object storage without addresses."""


def test_an_object_storage_sends_large_files_itself(client, adapter, settings):
    storage = f"{__name__}.SigningStorage"
    settings.STORAGES = {**settings.STORAGES, "default": {"BACKEND": storage}}
    for method in (client.head, client.get):
        response = method(f"/alice/adapter/resolve/main/{WEIGHTS}")
        sha256 = hashlib.sha256(FILES[WEIGHTS]).hexdigest()
        assert response.status_code == 302
        assert response["Location"].endswith(f"{sha256}?signature=1")
        assert response["X-Linked-Etag"] == response["ETag"] == f'"{sha256}"'
        assert response["X-Linked-Size"] == str(len(FILES[WEIGHTS]))
        assert response["X-Repo-Commit"] == adapter.latest.oid
        assert response["Cache-Control"] == "private, no-store"
    add_up_downloads()
    adapter.refresh_from_db()
    assert adapter.downloads == 1


def test_a_storage_without_addresses_is_read_by_the_site(client, adapter, settings):
    storage = f"{__name__}.BareStorage"
    settings.STORAGES = {**settings.STORAGES, "default": {"BACKEND": storage}}
    assert client.head(f"/alice/adapter/resolve/main/{WEIGHTS}").status_code == 200


def test_a_file_that_is_missing_names_the_commit(client, adapter):
    response = client.head("/alice/adapter/resolve/main/config.json")
    assert (response.status_code, response["X-Error-Code"]) == (404, "EntryNotFound")
    assert response["X-Repo-Commit"] == adapter.latest.oid
    assert response["X-Error-Message"] == "Entry not found"


@pytest.mark.parametrize("revision", ["nowhere", "0" * 40, "v9", "%00", "refs%2Fpr%2F1"])
def test_a_revision_that_is_missing_says_so(client, adapter, revision):
    response = client.head(f"/alice/adapter/resolve/{revision}/{WEIGHTS}")
    assert (response.status_code, response["X-Error-Code"]) == (404, "RevisionNotFound")


@pytest.mark.parametrize(
    "path", ["..%2f..%2fetc/passwd", "%00", "%5c..", "/etc/passwd", "a" * 5000, "%ff"]
)
def test_no_path_leads_out_of_the_tree(client, adapter, path):
    response = client.get(f"/alice/adapter/resolve/main/{path}")
    assert (response.status_code, response["X-Error-Code"]) == (404, "EntryNotFound")


def test_a_branch_tag_label_and_full_id_lead_to_the_same(client, adapter):
    Ref.objects.create(adapter=adapter, kind="tag", name="first", revision=adapter.latest)
    Ref.objects.create(adapter=adapter, name="exp/a b", revision=adapter.latest)
    names = ["main", "first", "v1", adapter.latest.oid, "refs%2Fheads%2Fmain"]
    for name in names:
        address = f"/alice/adapter/resolve/{name}/README.md"
        response = client.head(address, RAW_URI=address)
        assert response["X-Repo-Commit"] == adapter.latest.oid, name
    address = "/alice/adapter/resolve/exp%2Fa%20b/README.md"
    assert client.head(address, RAW_URI=address).status_code == 200


def test_what_is_private_answers_as_what_is_missing(client, as_bob, alice):
    make_adapter(alice, "secret", visibility="private")
    for headers in ({}, as_bob):
        hidden = client.get(f"/alice/secret/resolve/main/{WEIGHTS}", headers=headers)
        missing = client.get(f"/alice/absent/resolve/main/{WEIGHTS}", headers=headers)
        assert hidden.status_code == missing.status_code == (404 if headers else 401)
        assert hidden.content == missing.content
        told = [{**dict(response.headers), "X-Request-Id": ""} for response in (hidden, missing)]
        assert told[0] == told[1]
        assert hidden["X-Error-Code"] == "RepoNotFound"


def test_hiding_takes_as_many_queries_as_missing(client, alice, django_assert_num_queries):
    make_adapter(alice, "secret", visibility="private")
    for name in ("secret", "absent"):
        with django_assert_num_queries(3):
            client.head(f"/alice/{name}/resolve/main/{WEIGHTS}")


def test_the_owner_reads_what_is_private_with_a_token_that_only_reads(client, alice):
    adapter = make_adapter(alice, "secret", visibility="private")
    response = client.head(f"/alice/secret/resolve/main/{WEIGHTS}", headers=bearer(alice, "read"))
    assert response["X-Repo-Commit"] == adapter.latest.oid
    assert response["Cache-Control"] == "private, no-store"


def test_a_session_opens_nothing(client, alice):
    make_adapter(alice, "secret", visibility="private")
    client.force_login(alice)
    assert client.head(f"/alice/secret/resolve/main/{WEIGHTS}").status_code == 401


def test_an_unknown_token_reads_what_is_public_and_is_told(client, adapter):
    response = client.head(
        f"/alice/adapter/resolve/main/{WEIGHTS}", headers={"Authorization": "Bearer hf_other"}
    )
    assert response.status_code == 200
    assert response["X-HF-Warning"] == "auth; token not recognised"


def test_gated_files_are_for_those_who_were_let_in(client, adapter, bob, as_bob, as_alice):
    Adapter.objects.update(gated=Adapter.Gate.MANUAL)
    address = f"/alice/adapter/resolve/main/{WEIGHTS}"
    statuses = [client.head(address, headers=who).status_code for who in ({}, as_bob, as_alice)]
    assert statuses == [401, 403, 200]
    assert client.head(address)["X-Error-Code"] == "GatedRepo"
    asked = AccessRequest.objects.create(adapter=adapter, user=bob)
    assert client.head(address, headers=as_bob).status_code == 403
    AccessRequest.objects.filter(pk=asked.pk).update(state=AccessRequest.State.GRANTED)
    assert client.head(address, headers=as_bob).status_code == 200


def test_an_incomplete_push_is_for_its_owner_alone(client, adapter, as_alice):
    draft = make_draft(adapter, {"README.md": b"new"})
    seen = client.head("/alice/adapter/resolve/main/README.md")
    assert seen["X-Repo-Commit"] == adapter.latest.oid
    own = client.head("/alice/adapter/resolve/main/README.md", headers=as_alice)
    assert own["X-Repo-Commit"] == draft.oid
    by_id = client.head(f"/alice/adapter/resolve/{draft.oid}/README.md")
    assert by_id["X-Error-Code"] == "RevisionNotFound"


def test_a_branch_leads_past_what_others_may_not_see(client, adapter, as_alice):
    Ref.objects.create(adapter=adapter, name="next", revision=adapter.latest)
    draft = make_draft(adapter, {"README.md": b"new"}, branch="next")
    seen = client.head("/alice/adapter/resolve/next/README.md")
    assert seen["X-Repo-Commit"] == adapter.latest.oid
    own = client.head("/alice/adapter/resolve/next/README.md", headers=as_alice)
    assert own["X-Repo-Commit"] == draft.oid


def test_a_yanked_revision_answers_to_its_exact_pin(client, adapter, alice, as_alice):
    second = make_revision(adapter)
    Ref.objects.create(adapter=adapter, kind="tag", name="pinned", revision=second)
    services.yank_revision(second, by=alice, reason="wrong data")
    for headers in ({}, as_alice):
        main = client.head("/alice/adapter/resolve/main/README.md", headers=headers)
        assert main["X-Repo-Commit"] == second.parent.oid
        for pin in (second.oid, "pinned", "v2"):
            found = client.head(f"/alice/adapter/resolve/{pin}/README.md", headers=headers)
            assert found["X-Repo-Commit"] == second.oid


def test_an_old_address_leads_to_the_new_one(client, adapter):
    AdapterAlias.objects.create(full_name="alice/before", adapter=adapter)
    address = "/alice/Before/resolve/exp%2Fa/x%20y.txt?download=true"
    response = client.head(address, RAW_URI=address)
    assert response.status_code == 307
    assert response["Location"] == "/alice/adapter/resolve/exp%2Fa/x%20y.txt?download=true"


def test_an_old_address_of_what_is_private_leads_nowhere(client, alice):
    hidden = make_adapter(alice, "secret", visibility="private")
    AdapterAlias.objects.create(full_name="alice/before", adapter=hidden)
    assert client.head("/alice/before/resolve/main/README.md").status_code == 401


def test_a_write_is_refused_with_the_methods_there_are(client, adapter):
    response = client.post("/alice/adapter/resolve/main/README.md")
    assert (response.status_code, response["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "address",
    [
        "/gpt2/resolve/main/config.json",
        "/datasets/a/b/resolve/main/x.csv",
        "/api/models/gpt2",
        "/api/models/gpt2/tree/main",
        "/api/models/gpt2/revision/main",
        "/api/datasets/squad",
        "/api/models/nobody/nothing",
        "/api/models/no%00body/nothing",
    ],
)
def test_what_we_do_not_hold_is_told_in_the_clients_language(client, db, address):
    response = client.get(address)
    assert (response.status_code, response["X-Error-Code"]) == (401, "RepoNotFound")
    assert response.json() == {"error": "Repository not found"}


def test_unknown_parts_of_the_api_are_json(client, db):
    assert client.get("/api/quicksearch").json()["error"]
    assert client.get("/api/v1/nothing").status_code == 404


def test_web_addresses_of_the_hub_lead_to_our_pages(client, adapter):
    oid = adapter.latest.oid
    found = {
        "/alice/adapter/tree/main/notes": "/alice/adapter",
        "/alice/adapter/blob/exp%2Fa/x": "/alice/adapter",
        f"/alice/adapter/commit/{oid}": f"/alice/adapter/revisions/{oid}",
    }
    for address, page in found.items():
        assert client.get(address, RAW_URI=address)["Location"] == page
