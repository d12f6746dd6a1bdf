"""Pushes and what is tried against them: foreign content, forged permits, paths, bombs, races."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import threading

import lz4.frame
import pytest
from django.db import connection

from marketplace.catalogue.models import Adapter, Revision
from marketplace.hub.models import SentObject, XetSpace
from marketplace.hub.services import xet as xet_service
from marketplace.hub.services.operations import MAX_LINE
from marketplace.hub.services.signing import LfsPermit, sign
from marketplace.hub.tasks import clean_up_pushes
from tests.factories import make_adapter, make_base_model, make_user, tiny_adapter_files
from tests.marketplace.hub.conftest import bearer

JSON = "application/json"


def post(client, url, body, headers):
    return client.post(url, json.dumps(body), content_type=JSON, headers=headers)


def put_file(path: str, content: bytes) -> dict:
    return {
        "key": "file",
        "value": {"path": path, "content": base64.b64encode(content).decode()},
    }


def push(client, headers, repo, *operations, parent="", branch="main"):
    header = {"summary": "Push", "parentCommit": parent} if parent else {"summary": "Push"}
    lines = [{"key": "header", "value": header}, *operations]
    body = "\n".join(json.dumps(line) for line in lines)
    url = f"/api/models/{repo}/commit/{branch}"
    return client.post(url, body, content_type="application/x-ndjson", headers=headers)


@pytest.fixture
def repo(client, as_alice):
    make_base_model()
    answer = post(client, "/api/repos/create", {"name": "adapter"}, as_alice)
    assert answer.status_code == 200
    return answer.json()["name"]


@pytest.fixture
def whole():
    return [put_file(path, content) for path, content in tiny_adapter_files(seed=3).items()]


def test_it_works(client, repo, as_alice, whole):
    """A whole adapter is on the shelf at once, byte for byte, and again is no new commit."""
    first = push(client, as_alice, repo, *whole)
    assert first.status_code == 200, first.content
    adapter = Adapter.objects.get()
    assert adapter.latest.oid == first.json()["commitOid"]
    assert adapter.latest.number == 1
    config = adapter.latest.files.get(path="adapter_config.json").blob_id
    sent = tiny_adapter_files(seed=3)["adapter_config.json"]
    assert config == hashlib.sha256(sent).hexdigest()
    assert push(client, as_alice, repo, *whole).json() == first.json()


def test_a_part_of_an_adapter_is_a_draft_that_only_its_owner_sees(client, repo, as_alice, as_bob):
    assert push(client, as_alice, repo, put_file("notes.txt", b"x")).status_code == 200
    assert client.get(f"/api/models/{repo}", headers=as_alice).status_code == 200
    hidden = client.get(f"/api/models/{repo}", headers=as_bob)
    missing = client.get("/api/models/alice/nothing", headers=as_bob)
    assert (hidden.status_code, hidden.content) == (missing.status_code, missing.content)


def test_a_generic_card_erases_nothing(client, alice, as_alice):
    adapter = make_adapter(alice, "known", card=None, summary="Mine", tags=["sql"])
    Adapter.objects.filter(pk=adapter.pk).update(card="# Known\n")
    card = b"---\nlibrary_name: transformers\ntags: []\n---\n# Model Card for Model ID\n"
    assert push(client, as_alice, "alice/known", put_file("README.md", card)).status_code == 200
    adapter.refresh_from_db()
    assert adapter.latest.number == 2
    assert (adapter.card, adapter.summary) == ("# Known\n", "Mine")
    assert [tag.name for tag in adapter.tags.all()] == ["sql"]


def test_a_pattern_of_the_users_is_never_published(client, repo, as_alice):
    files = tiny_adapter_files(seed=4, config={"target_modules": ".*(q|v)_proj"})
    operations = [put_file(path, content) for path, content in files.items()]
    first = push(client, as_alice, repo, *operations)
    assert first.status_code == 200, first.content
    names = client.get(f"/{repo}/resolve/main/adapter_config.json", headers=as_alice).getvalue()
    assert sorted(json.loads(names)["target_modules"]) == ["q_proj", "v_proj"]
    assert push(client, as_alice, repo, *operations).json() == first.json()


@pytest.mark.parametrize(
    "path",
    ["../x", "/etc/passwd", "a/../b", ".git/config", "a//b", "a\\b", "a\x00b", "", "x" * 501],
)
def test_a_path_that_leads_elsewhere_is_refused(client, repo, as_alice, path):
    assert push(client, as_alice, repo, put_file(path, b"x")).status_code == 400
    assert Revision.objects.count() == 1


def test_a_line_without_end_is_cut_off(client, repo, as_alice):
    answer = push(client, as_alice, repo, put_file("x", b"x" * MAX_LINE))
    assert answer.status_code == 400
    assert Revision.objects.count() == 1


def test_others_can_neither_push_nor_create_nor_delete(client, alice, as_bob):
    make_adapter(alice, "public")
    assert push(client, as_bob, "alice/public", put_file("x", b"x")).status_code == 403
    taken = post(client, "/api/repos/create", {"name": "x", "organization": "alice"}, as_bob)
    assert taken.status_code == 403
    gone = client.delete(
        "/api/repos/delete",
        json.dumps({"name": "public", "organization": "alice"}),
        content_type=JSON,
        headers=as_bob,
    )
    assert gone.status_code == 403
    reader = bearer(alice, "read")
    assert push(client, reader, "alice/public", put_file("x", b"x")).status_code == 403


def test_a_name_that_was_deleted_is_not_given_out_again(client, repo, as_alice):
    body = json.dumps({"name": "adapter"})
    gone = client.delete("/api/repos/delete", body, content_type=JSON, headers=as_alice)
    assert gone.status_code == 200
    assert post(client, "/api/repos/create", {"name": "Adapter"}, as_alice).status_code == 400


def test_content_of_others_cannot_be_named(client, repo, as_alice, bob):
    secret = make_adapter(bob, "secret", visibility="private")
    oid = secret.latest.weights_sha256
    line = {"key": "lfsFile", "value": {"path": "w", "algo": "sha256", "oid": oid}}
    refused = push(client, as_alice, repo, line)
    unknown = {"key": "lfsFile", "value": {"path": "w", "algo": "sha256", "oid": "0" * 64}}
    assert refused.status_code == 400
    assert refused.content == push(client, as_alice, repo, unknown).content
    Adapter.objects.filter(pk=secret.pk).update(visibility="public")
    assert push(client, as_alice, repo, line).status_code == 200
    Adapter.objects.filter(pk=secret.pk).update(gated="manual")
    again = {"key": "lfsFile", "value": {"path": "w2", "algo": "sha256", "oid": oid}}
    assert push(client, as_alice, repo, again).status_code == 200  # it is in a repository of hers


def lfs_batch(client, repo, headers, content, **options):
    oid = hashlib.sha256(content).hexdigest()
    objects = [{"oid": oid, "size": len(content)}]
    body = {"operation": "upload", "transfers": ["basic"], "objects": objects, **options}
    answer = post(client, f"/{repo}.git/info/lfs/objects/batch", body, headers)
    return oid, answer.json()["objects"][0]


def test_a_large_file_is_taken_only_as_it_was_announced(client, repo, as_alice, settings):
    content = b"large" * 100
    oid, told = lfs_batch(client, repo, as_alice, content)
    href = told["actions"]["upload"]["href"].removeprefix(settings.PUBLIC_URL)
    assert client.put(href, b"other" * 100).status_code == 400
    assert client.put(href, content + b"!").status_code == 400
    assert client.put(href[:-1] + ("A" if href[-1] != "A" else "B"), content).status_code == 403
    assert client.put(href, content).status_code == 200
    assert "actions" not in lfs_batch(client, repo, as_alice, content)[1]
    line = {"key": "lfsFile", "value": {"path": "w", "oid": oid, "size": len(content)}}
    assert push(client, as_alice, repo, line).status_code == 200


def test_a_permit_ends_with_its_token_and_its_time(client, alice, repo, as_alice, monkeypatch):
    content = b"x" * 10
    oid = hashlib.sha256(content).hexdigest()
    token = alice.api_tokens.get()
    permit = LfsPermit(token=token.pk, oid=oid, size=10)
    monkeypatch.setattr("marketplace.hub.services.signing.LFS_SECONDS", -1)
    assert client.put(f"/_lfs/{sign(permit)}", content).status_code == 403
    monkeypatch.undo()
    token.delete()
    assert client.put(f"/_lfs/{sign(permit)}", content).status_code == 403
    assert not SentObject.objects.exists()


def xet(client, repo, headers):
    answer = client.get(f"/api/models/{repo}/xet-write-token/main", headers=headers)
    place = "/_cas/" + answer.json()["casUrl"].rpartition("/")[2]
    return place, {"Authorization": f"Bearer {answer.json()['accessToken']}"}


def chunk_of(data: bytes, *, raw: int | None = None, kind: int = 0) -> bytes:
    raw = len(data) if raw is None else raw
    return (
        bytes([0])
        + len(data).to_bytes(3, "little")
        + bytes([kind])
        + raw.to_bytes(3, "little")
        + data
    )


def shard_of(sha256: str, xorb: str, size: int) -> bytes:
    def raw(text: str) -> bytes:
        return b"".join(struct.pack("<Q", int(text[i : i + 16], 16)) for i in range(0, 64, 16))

    head = b"HFRepoMetaData".ljust(32, b"\0") + struct.pack("<QQ", 2, 0)
    file = b"\1" * 32 + struct.pack("<II", 1 << 30, 1) + bytes(8)
    segment = raw(xorb) + struct.pack("<IIII", 0, size, 0, 1)
    return head + file + segment + raw(sha256) + bytes(16) + b"\xff" * 32 + bytes(16)


def send(client, url, body, headers):
    return client.post(url, body, content_type="application/octet-stream", headers=headers)


def test_a_file_sent_over_xet_can_be_committed_by_its_sender_alone(client, repo, as_alice, as_bob):
    data, xorb = b"weights" * 50, "ab" * 32
    place, permit = xet(client, repo, as_alice)
    assert send(client, f"{place}/v1/xorbs/default/{xorb}", chunk_of(data), permit).json() == {
        "was_inserted": True
    }
    oid = hashlib.sha256(data).hexdigest()
    post(client, "/api/repos/create", {"name": "other"}, as_bob)
    bobs_place, bobs_permit = xet(client, "bob/other", as_bob)
    shard = shard_of(oid, xorb, len(data))
    assert send(client, f"{bobs_place}/v1/shards", shard, bobs_permit).status_code == 400
    assert send(client, f"{place}/v1/shards", shard, bobs_permit).status_code == 401
    assert send(client, f"{place}/v1/shards", shard, permit).json() == {"result": 1}
    line = {"key": "lfsFile", "value": {"path": "w", "oid": oid, "size": len(data)}}
    assert push(client, as_bob, "bob/other", line).status_code == 400
    assert push(client, as_alice, repo, line).status_code == 200


def test_a_xorb_is_full_at_64_mib_of_content_and_its_headers_come_on_top(client, repo, as_alice):
    place, permit = xet(client, repo, as_alice)
    body = chunk_of(bytes(128 << 10)) * 512
    assert len(body) > 64 << 20
    assert send(client, f"{place}/v1/xorbs/default/{'ab' * 32}", body, permit).status_code == 200
    answer = send(client, f"{place}/v1/xorbs/default/{'cd' * 32}", body + body[: 2 << 20], permit)
    assert answer.status_code == 400


def test_a_bomb_in_a_xorb_does_not_unfold(client, repo, as_alice):
    bomb, xorb = lz4.frame.compress(bytes(64 << 20)), "cd" * 32
    place, permit = xet(client, repo, as_alice)
    body = chunk_of(bomb, raw=1000, kind=1)
    answer = send(client, f"{place}/v1/xorbs/default/{xorb}", body, permit)
    if answer.status_code == 200:
        shard = shard_of("0" * 64, xorb, 1000)
        answer = send(client, f"{place}/v1/shards", shard, permit)
    assert answer.status_code == 400


def test_a_purged_space_has_a_new_address(client, repo, as_alice, settings, monkeypatch):
    place, permit = xet(client, repo, as_alice)
    send(client, f"{place}/v1/xorbs/default/{'ab' * 32}", chunk_of(b"x"), permit)
    monkeypatch.setattr(xet_service, "KEPT", -xet_service.KEPT)
    clean_up_pushes()
    assert XetSpace.objects.get().xorbs.count() == 0
    answer = send(client, f"{place}/v1/xorbs/default/{'ab' * 32}", chunk_of(b"x"), permit)
    assert answer.status_code == 401
    assert xet(client, repo, as_alice)[0] != place


@pytest.mark.django_db(transaction=True)
def test_racing_pushes_are_all_kept(client):
    headers = bearer(make_user("alice"))
    post(client, "/api/repos/create", {"name": "adapter"}, headers)
    answers = []

    def run(number):
        answers.append(push(client, headers, "alice/adapter", put_file(f"{number}.txt", b"x")))
        connection.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [200] * 4
    newest = Revision.objects.order_by("-id")[0]
    assert sorted(newest.files.values_list("path", flat=True)) == [f"{n}.txt" for n in range(4)]
