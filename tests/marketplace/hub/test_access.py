"""Requests for gated repositories, as the clients list and decide them."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from marketplace.catalogue import services
from marketplace.catalogue.models import AccessRequest, Adapter
from tests.factories import make_adapter, make_user
from tests.marketplace.hub.conftest import bearer

API = "/api/models/alice/gated/user-access-request"
FILE = "/alice/gated/resolve/main/adapter_config.json"


@pytest.fixture
def gated(alice) -> Adapter:
    adapter = make_adapter(alice, "gated")
    services.set_gate(adapter, "manual", by=alice)
    return adapter


def post(client: Client, address: str, body: Any, headers: dict[str, str]) -> Any:
    return client.post(address, body, content_type="application/json", headers=headers)


def state_of(user: Any) -> str:
    return AccessRequest.objects.get(user=user).state


def test_it_works(client, gated, bob, as_alice, as_bob):
    assert client.get(FILE, headers=as_bob).status_code == 403
    asked = post(client, "/alice/gated/ask-access", {}, as_bob)
    assert (asked.status_code, asked.json()) == (200, {"status": "pending"})
    (listed,) = client.get(f"{API}/pending", headers=as_alice).json()
    assert listed["user"] == {"user": "bob", "fullname": "bob"}
    assert listed["status"] == "pending"
    assert listed["timestamp"].endswith("Z")
    assert "email" not in str(listed)

    accepted = {"user": "bob", "status": "accepted"}
    assert post(client, f"{API}/handle", accepted, as_alice).status_code == 200
    answer = client.get(FILE, headers=as_bob)
    assert answer.status_code == 200
    assert b"".join(answer.streaming_content)
    assert client.get(f"{API}/pending", headers=as_alice).json() == []
    assert len(client.get(f"{API}/accepted", headers=as_alice).json()) == 1

    waiting = {"requestId": listed["requestId"], "status": "pending"}
    assert post(client, f"{API}/handle", waiting, as_alice).status_code == 200
    assert client.get(FILE, headers=as_bob).status_code == 403
    rejected = {"user": "bob", "status": "rejected", "rejectionReason": "No."}
    assert post(client, f"{API}/handle", rejected, as_alice).status_code == 200
    assert len(client.get(f"{API}/rejected", headers=as_alice).json()) == 1


def test_somebody_is_let_in_who_did_not_ask(client, gated, bob, as_alice, as_bob):
    assert post(client, f"{API}/grant", {"user": "bob"}, as_alice).status_code == 200
    assert state_of(bob) == "granted"
    assert client.head(FILE, headers=as_bob).status_code == 200
    assert post(client, f"{API}/grant", {"user": "alice"}, as_alice).status_code == 400
    assert post(client, f"{API}/grant", {"user": "nobody"}, as_alice).status_code == 404


def test_others_neither_look_nor_decide(client, gated, alice, bob, as_bob):
    services.ask_for_access(gated, bob)
    accepted = {"user": "bob", "status": "accepted"}
    reader = bearer(alice, "read")
    for headers, status in ((as_bob, 403), (reader, 403), ({}, 401)):
        assert client.get(f"{API}/pending", headers=headers).status_code == status
        assert post(client, f"{API}/handle", accepted, headers).status_code == status
        assert post(client, f"{API}/grant", {"user": "bob"}, headers).status_code == status
    assert post(client, "/alice/gated/ask-access", {}, {}).status_code == 401
    assert state_of(bob) == "pending"


def test_cookies_decide_nothing(client, gated, alice, bob):
    services.ask_for_access(gated, bob)
    client.force_login(alice)
    accepted = {"user": "bob", "status": "accepted"}
    assert post(client, f"{API}/handle", accepted, {}).status_code == 401
    assert state_of(bob) == "pending"


def test_a_private_repository_is_not_found(client, gated, alice, as_alice, as_bob):
    services.set_visibility(gated, "private", by=alice)
    for address in (f"{API}/handle", f"{API}/grant", "/alice/gated/ask-access"):
        answer = post(client, address, {"user": "bob"}, as_bob)
        assert (answer.status_code, answer["X-Error-Code"]) == (404, "RepoNotFound")
        missing = post(client, address.replace("gated", "absent"), {"user": "bob"}, as_bob)
        assert missing.content == answer.content


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"user": "bob", "status": "accepted"}, 404),
        ({"user": "nobody", "status": "accepted"}, 404),
        ({"user": "b\0b", "status": "accepted"}, 404),
        ({"requestId": "1" * 30, "status": "accepted"}, 404),
        ({"requestId": "x", "status": "accepted"}, 404),
        ({"status": "accepted"}, 404),
        ({"user": "bob", "status": "maybe"}, 400),
        ({"user": ["bob"], "status": "accepted"}, 400),
        ({"user": "bob"}, 400),
    ],
)
def test_what_cannot_be_decided_is_told(client, gated, bob, as_alice, body, status):
    assert post(client, f"{API}/handle", body, as_alice).status_code == status


def test_a_request_in_that_state_already_is_told(client, gated, bob, as_alice):
    services.ask_for_access(gated, bob)
    waiting = {"user": "bob", "status": "pending"}
    assert post(client, f"{API}/handle", waiting, as_alice).status_code == 404


def test_a_request_of_another_adapter_is_not_found(client, gated, alice, bob, as_alice):
    other = make_adapter(make_user("carol"), "other")
    services.set_gate(other, "manual", by=other.owner)
    foreign = services.ask_for_access(other, bob)
    body = {"requestId": str(foreign.pk), "status": "accepted"}
    assert post(client, f"{API}/handle", body, as_alice).status_code == 404
    assert state_of(bob) == "pending"


def test_an_open_repository_has_no_requests(client, gated, alice, bob, as_alice, as_bob):
    services.set_gate(gated, "open", by=alice)
    assert client.get(f"{API}/pending", headers=as_alice).status_code == 400
    accepted = {"user": "bob", "status": "accepted"}
    assert post(client, f"{API}/handle", accepted, as_alice).status_code == 400
    assert post(client, "/alice/gated/ask-access", {}, as_bob).status_code == 400


def test_an_automatic_gate_answers_at_once(client, gated, alice, as_bob):
    services.set_gate(gated, "auto", by=alice)
    asked = post(client, "/alice/gated/ask-access", {}, as_bob)
    assert asked.json() == {"status": "accepted"}
    assert client.head(FILE, headers=as_bob).status_code == 200
