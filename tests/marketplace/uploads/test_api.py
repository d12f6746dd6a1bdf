"""Uploading by program: the whole road, and what is refused with which status."""

from __future__ import annotations

import hashlib

import pytest
from django.test import Client
from django.urls import reverse

from marketplace.catalogue.models import Adapter
from marketplace.uploads import quarantine
from marketplace.uploads.models import Upload
from marketplace.uploads.services import Announced, create_upload, receive_file, validate_upload
from tests.factories import make_base_model, tiny_adapter_files
from tests.marketplace.uploads.conftest import Fill

LIST = "/api/v1/uploads"
RAW = "application/octet-stream"


@pytest.fixture
def address(upload: Upload) -> str:
    return f"{LIST}/{upload.pk}"


def test_it_works(client: Client, token, base):
    made = client.post(LIST, {"name": "by-program"}, "application/json", headers=token)
    assert made.status_code == 201
    address = f"{LIST}/{made.json()['id']}"

    for path, content in tiny_adapter_files(seed=1).items():
        sent = client.put(f"{address}/files/{path}", content, RAW, headers=token)
        assert sent.status_code == 200
        assert sent.json()["sha256"] == hashlib.sha256(content).hexdigest()
    checked = client.post(f"{address}/validate", {}, "application/json", headers=token).json()
    assert (checked["state"], checked["problems"]) == ("ready", [])
    assert checked["adapter_summary"]["rank"] == 4
    card = {"licence": "MIT", "tags": ["tiny"], "samples": [{"input": "a", "output": "b"}]}
    client.patch(address, card, "application/json", headers=token)
    published = client.post(f"{address}/publish", headers=token)

    assert published.status_code == 200
    assert published.json()["state"] == "published"
    assert published.json()["adapter"] == "ann/by-program"
    adapter = Adapter.objects.get()
    assert published.json()["revision"] == adapter.revisions.get().oid
    assert (adapter.licence, adapter.samples.get().output) == ("MIT", "b")
    assert client.post(f"{address}/publish", headers=token).json() == published.json()


def test_it_works_with_the_session_and_its_csrf_token(owner, upload: Upload):
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(owner)
    browser.get(reverse("uploads:new"))
    address = f"{LIST}/{upload.pk}/files/a.txt"

    assert browser.put(address, b"x", RAW).status_code == 403
    headers = {"X-CSRFToken": browser.cookies["csrftoken"].value}
    assert browser.put(address, b"x", RAW, headers=headers).status_code == 200


def test_a_stranger_finds_nothing(client: Client, stranger, upload: Upload, address: str):
    client.force_login(stranger)
    missing = client.get(f"{LIST}/00000000-0000-4000-8000-000000000000")

    answers = [
        client.get(address),
        client.patch(address, {"name": "mine"}, "application/json"),
        client.delete(address),
        client.put(f"{address}/files/a.txt", b"x", RAW),
        client.delete(f"{address}/files/a.txt"),
        client.post(f"{address}/validate", {}, "application/json"),
        client.post(f"{address}/publish"),
    ]

    assert {answer.status_code for answer in answers} == {404}
    assert answers[0].json()["error"] == missing.json()["error"]
    assert client.get(LIST).json()["results"] == []
    upload.refresh_from_db()
    assert upload.name == "first"
    assert not quarantine.folder_of(upload.pk).exists()


def test_nobody_uploads_without_signing_in(client: Client, address: str):
    assert client.get(LIST).status_code == 401
    assert client.post(LIST, {}, "application/json").status_code == 401
    assert client.put(f"{address}/files/a.txt", b"x", RAW).status_code == 401


def test_a_token_that_may_only_read_sends_nothing(client: Client, owner, address: str, token):
    owner.api_tokens.update(scope="read")

    assert client.get(address, headers=token).status_code == 200
    assert client.put(f"{address}/files/a.txt", b"x", RAW, headers=token).status_code == 403


def test_refused_files_are_told_with_the_way_out(
    client: Client, token, address: str, upload: Upload, fill: Fill
):
    fill(upload, tiny_adapter_files(seed=1, base_name="acme/unknown"))

    refused = client.post(f"{address}/validate", {}, "application/json", headers=token).json()

    assert refused["state"] == "refused"
    assert set(refused["problems"][0]) == {"file", "field", "message", "fix"}
    assert refused["fitting_bases"] == ["tiny/base"]
    body = {"base_model": "tiny/base"}
    again = client.post(f"{address}/validate", body, "application/json", headers=token).json()
    assert (again["state"], again["base_model"]) == ("ready", "tiny/base")


def test_an_unknown_base_is_refused_by_name(client: Client, token, address: str):
    body = {"base_model": "acme/unknown"}

    refused = client.post(f"{address}/validate", body, "application/json", headers=token)

    assert refused.status_code == 400
    assert "base_model" in refused.json()["problems"]


def test_what_stands_against_publishing_is_told_by_field(
    client: Client, token, address: str, upload: Upload, fill: Fill
):
    validate_upload(fill(upload))
    client.patch(address, {"name": "a--b", "licence": "?"}, "application/json", headers=token)

    refused = client.post(f"{address}/publish", headers=token)

    assert refused.status_code == 400
    assert set(refused.json()["problems"]) == {"name", "licence"}


def test_an_unchecked_draft_is_a_conflict(client: Client, token, address: str):
    assert client.post(f"{address}/publish", headers=token).status_code == 409


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        ("?offset=x", {}, 400),
        ("?size=-1", {}, 400),
        ("?sha256=abc", {}, 400),
        ("?sha256=" + "0" * 64, {}, 422),
        ("?offset=7", {}, 400),
        ("", {"Content-Range": "lines 1-2/3"}, 400),
        ("", {"Content-Range": "bytes 0-0/900000"}, 413),
    ],
)
def test_bad_announcements_are_refused(client, token, address, query, headers, status):
    answer = client.put(f"{address}/files/a.txt{query}", b"x", RAW, headers=token | headers)

    assert answer.status_code == status
    assert answer.json()["error"]


def test_a_file_goes_on_at_an_offset(client: Client, token, address: str, upload: Upload):
    first = client.put(f"{address}/files/a.txt?size=6", b"abc", RAW, headers=token)
    assert first.json() == {"path": "a.txt", "received": 3, "complete": False, "sha256": ""}

    by_range = {"Content-Range": "bytes 3-5/6"}
    second = client.put(f"{address}/files/a.txt", b"def", RAW, headers=token | by_range)

    assert second.json()["complete"]
    assert (quarantine.folder_of(upload.pk) / "a.txt").read_bytes() == b"abcdef"


def test_a_range_of_unknown_length_is_whole_at_its_end(client: Client, token, address: str):
    headers = token | {"Content-Range": "bytes 0-2/*"}

    assert client.put(f"{address}/files/a.txt", b"abc", RAW, headers=headers).json()["complete"]


def test_too_large_is_413_and_a_wrong_name_400(client: Client, token, address: str, settings):
    settings.MAX_WEIGHTS_BYTES = 3
    weights = f"{address}/files/adapter_model.safetensors"

    assert client.put(weights, b"four", RAW, headers=token).status_code == 413
    assert client.put(f"{address}/files/x.exe", b"x", RAW, headers=token).status_code == 400


def test_a_file_that_is_being_sent_answers_when_to_try_again(
    client: Client, token, address: str, upload: Upload
):
    with quarantine.only_writer(upload.pk, "a.txt"):
        answer = client.put(f"{address}/files/a.txt", b"x", RAW, headers=token)

    assert answer.status_code == 409
    assert answer["Retry-After"] == "2"


def test_files_and_drafts_can_be_taken_back(client: Client, token, address: str, upload: Upload):
    receive_file(upload, "a.txt", [b"x"], Announced())

    assert client.delete(f"{address}/files/a.txt", headers=token).status_code == 204
    assert client.get(address, headers=token).json()["files"] == []
    assert client.delete(address, headers=token).status_code == 204
    assert not Upload.objects.exists()


def test_the_list_has_open_drafts_only(client: Client, owner, token, fill: Fill):
    make_base_model()
    open_draft, done = create_upload(owner), create_upload(owner)
    Upload.objects.filter(pk=done.pk).update(state=Upload.State.PUBLISHED)

    listed = client.get(LIST, headers=token).json()["results"]

    assert [item["id"] for item in listed] == [str(open_draft.pk)]


def test_samples_typed_wrongly_do_not_break_the_draft(client, token, address, upload: Upload):
    Upload.objects.update(samples="no arrow")

    assert client.get(address, headers=token).json()["samples"] == []


def test_beginning_drafts_is_counted(client: Client, token, monkeypatch):
    monkeypatch.setattr(
        "rest_framework.throttling.ScopedRateThrottle.get_rate", lambda self: "1/hour"
    )

    first = client.post(LIST, {}, "application/json", headers=token)
    second = client.post(LIST, {}, "application/json", headers=token)

    assert (first.status_code, second.status_code) == (201, 429)
    assert client.get(LIST, headers=token).status_code == 200
