"""Who the caller is, what they may do, what they like, and the clients' housekeeping."""

from __future__ import annotations

import pytest

from marketplace.accounts.models import ApiToken, User
from marketplace.catalogue.models import Adapter
from tests.factories import make_adapter
from tests.marketplace.hub.conftest import bearer


def test_it_works(client, alice, as_alice):
    told = client.get("/api/whoami-v2", headers=as_alice).json()
    assert (told["type"], told["name"], told["orgs"]) == ("user", "alice", [])
    assert told["auth"]["accessToken"] == {"displayName": "laptop 0", "role": "write"}


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer lm_bad"}])
def test_without_a_token_that_is_known_nobody_is_anybody(client, db, headers):
    answer = client.get("/api/whoami-v2", headers=headers)
    assert answer.status_code == 401
    assert answer["X-Error-Message"] == "Invalid credentials in Authorization header"
    assert answer["WWW-Authenticate"] == "Bearer"


def test_a_token_of_somebody_who_was_shut_out_is_worth_nothing(client, alice, as_alice):
    User.objects.filter(pk=alice.pk).update(is_active=False)
    assert client.get("/api/whoami-v2", headers=as_alice).status_code == 401


def test_rights_are_told_before_they_are_needed(client, alice, as_alice, as_bob):
    make_adapter(alice, "adapter")
    read = bearer(alice, ApiToken.Scope.READ)
    check = "/api/models/alice/adapter/auth-check"
    assert client.get(check).status_code == 200
    assert client.get(f"{check}/write", headers=as_alice).status_code == 200
    assert client.get(f"{check}/write", headers=as_bob).status_code == 403
    refused = client.get(f"{check}/write", headers=read)
    assert refused.status_code == 403
    # A header is ASCII, and what it says is what the body says.
    assert refused["X-Error-Message"] == refused.json()["error"]
    assert '"read and write"' in refused["X-Error-Message"]
    assert client.get(f"{check}/write").status_code == 401


def test_the_clients_housekeeping_is_answered(client, db):
    assert client.get("/api/agent-harnesses").json() == {"standardEnvVars": [], "harnesses": {}}
    assert client.head("/api/telemetry/peft/load").status_code == 204


def test_likes_are_counted_once_and_taken_back(client, alice, bob, as_bob):
    make_adapter(alice, "adapter")
    like = "/api/models/alice/adapter/like"
    assert [client.post(like, headers=as_bob).json() for _ in range(2)] == [{"likes": 1}] * 2
    likers = client.get("/api/models/alice/adapter/likers").json()
    assert likers == [{"user": "bob", "fullname": "bob", "avatarUrl": ""}]
    liked = client.get("/api/users/BOB/likes").json()
    assert [entry["repo"] for entry in liked] == [{"name": "alice/adapter", "type": "model"}]
    assert client.delete(like, headers=as_bob).json() == {"likes": 0}
    assert client.get("/api/models/alice/adapter/likers").json() == []
    assert client.post(like).status_code == 401


def test_likes_tell_nothing_of_what_is_private(client, alice, as_alice):
    adapter = make_adapter(alice, "adapter")
    client.post("/api/models/alice/adapter/like", headers=as_alice)
    Adapter.objects.filter(pk=adapter.pk).update(visibility="private")
    assert client.get("/api/users/alice/likes").json() == []
    assert len(client.get("/api/users/alice/likes", headers=as_alice).json()) == 1
    assert client.get("/api/users/%00/likes").json() == []
    assert client.get("/api/models/alice/adapter/likers").status_code == 401


def test_there_are_no_discussions(client, alice):
    make_adapter(alice, "adapter")
    told = client.get("/api/models/alice/adapter/discussions").json()
    assert told == {"discussions": [], "count": 0, "start": 0}
