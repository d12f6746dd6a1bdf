"""Gated adapters: asking, deciding and revoking, on the pages, in the API and in the services."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from marketplace.accounts.models import ApiToken, User
from marketplace.catalogue import services
from marketplace.catalogue.models import AccessRequest, Adapter
from tests.factories import make_adapter, make_user, tiny_adapter_files

pytestmark = pytest.mark.django_db

PAGE = "/ann/gated"
API = f"/api/v1/adapters{PAGE}/access"
README = (
    "---\nlicense: mit\nextra_gated_prompt: >-\n  Use it for **research** only.\n"
    "  <script>alert(1)</script>\n---\n# Gated\n"
)


@pytest.fixture
def owner() -> User:
    return make_user("ann")


@pytest.fixture
def asker() -> User:
    return make_user("bob")


@pytest.fixture
def gated(owner: User) -> Adapter:
    adapter = make_adapter(owner, "gated", files=tiny_adapter_files(seed=5, readme=README))
    services.set_gate(adapter, "manual", by=owner)
    adapter.refresh_from_db()
    return adapter


def sign_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def text_of(answer: Any) -> str:
    assert answer.status_code == 200
    return " ".join(answer.content.decode().split())


def downloads(client: Client) -> bool:
    answer = client.get(f"{PAGE}/download/main/adapter_config.json")
    if answer.status_code == 200:
        assert b"".join(answer.streaming_content)
    return answer.status_code == 200


def state_of(gated: Adapter, user: User) -> str:
    return AccessRequest.objects.get(adapter=gated, user=user).state


def decide(client: Client, user: str, decision: str, **more: str) -> Any:
    asked = {"user": user, "decision": decision, **more}
    return client.post(f"{PAGE}/access/decide", asked, follow=True)


def test_it_works(gated, owner, asker):
    visitor, author = sign_in(asker), sign_in(owner)
    page = text_of(visitor.get(PAGE))
    assert "Use it for <strong>research</strong> only." in page
    assert "<script>alert" not in page
    assert "Download: ask first" in page

    visitor.post(f"{PAGE}/access/ask", {"message": "  For a\nstudy. "})
    assert "Withdraw the request" in text_of(visitor.get(PAGE))
    assert not downloads(visitor)
    assert "1 request waits" in text_of(author.get(PAGE))
    assert "1 waiting for access" in text_of(author.get("/adapters"))
    assert "“For a study.”" in text_of(author.get("/adapters/requests"))

    page = text_of(decide(author, "bob", "grant", back="requests"))
    assert "The request of bob is granted." in page
    assert "Nobody waits for your decision" in page
    assert "The files are open to you" in text_of(visitor.get(PAGE))
    assert "granted" in text_of(visitor.get("/adapters/requests"))
    assert downloads(visitor)

    assert "Revoke" in text_of(author.get(f"{PAGE}/access"))
    decide(author, "bob", "refuse")
    assert "did not let you in" in text_of(visitor.get(PAGE))
    assert not downloads(visitor)


def test_nobody_is_asked_to_sign_in_first(client, gated):
    page = text_of(client.get(PAGE))
    assert "/accounts/sign-in?next=/ann/gated" in page
    assert "Ask for access</button>" not in page
    for part in ("ask", "withdraw", "decide", "grant", "gate"):
        answer = client.post(f"{PAGE}/access/{part}", {"user": "bob", "decision": "grant"})
        assert answer.url.startswith("/accounts/sign-in")
    assert client.get(f"{PAGE}/access").url.startswith("/accounts/sign-in")
    assert client.get("/adapters/requests").url.startswith("/accounts/sign-in")
    assert not AccessRequest.objects.exists()


def test_only_the_owner_decides(gated, asker):
    attacker = sign_in(asker)
    attacker.post(f"{PAGE}/access/ask")
    assert decide(attacker, "bob", "grant").status_code == 404
    assert attacker.post(f"{PAGE}/access/grant", {"user": "bob"}).status_code == 404
    assert attacker.post(f"{PAGE}/access/gate", {"gated": "open"}).status_code == 404
    assert attacker.get(f"{PAGE}/access").status_code == 404
    assert state_of(gated, asker) == "pending"
    gated.refresh_from_db()
    assert gated.gated == "manual"
    assert not downloads(attacker)


def test_the_services_hold_to_the_owner_too(gated, asker):
    services.ask_for_access(gated, asker)
    for do in (
        lambda: services.decide_access(gated, asker, "granted", by=asker),
        lambda: services.grant_access(gated, asker, by=asker),
        lambda: services.set_gate(gated, "open", by=asker),
    ):
        with pytest.raises(services.CatalogueError, match="Only the owner"):
            do()
    assert state_of(gated, asker) == "pending"


def test_looking_changes_nothing(gated, owner, asker):
    services.ask_for_access(gated, asker)
    for part in ("ask", "withdraw", "decide", "grant", "gate"):
        assert sign_in(owner).get(f"{PAGE}/access/{part}").status_code == 405


def test_asking_twice_is_once_and_a_refusal_stands(gated, owner, asker):
    first = services.ask_for_access(gated, asker, message="One.")
    assert services.ask_for_access(gated, asker, message="Two.") == first
    services.decide_access(gated, asker, "refused", by=owner)
    visitor = sign_in(asker)
    visitor.post(f"{PAGE}/access/ask")
    visitor.post(f"{PAGE}/access/withdraw")
    visitor.post(f"{PAGE}/access/ask")
    assert state_of(gated, asker) == "refused"
    assert AccessRequest.objects.count() == 1


def test_a_request_can_be_withdrawn(gated, asker):
    visitor = sign_in(asker)
    visitor.post(f"{PAGE}/access/ask")
    page = text_of(visitor.post(f"{PAGE}/access/withdraw", follow=True))
    assert "Your request is withdrawn" in page
    assert not AccessRequest.objects.exists()
    assert visitor.post(f"{PAGE}/access/withdraw").status_code == 302


def test_an_automatic_gate_lets_in_who_asks_and_who_waited(gated, owner, asker):
    waiting = make_user("cat")
    services.ask_for_access(gated, waiting)
    page = text_of(sign_in(owner).post(f"{PAGE}/access/gate", {"gated": "auto"}, follow=True))
    assert "The gate is set" in page
    assert state_of(gated, waiting) == "granted"
    visitor = sign_in(asker)
    assert "your name is noted" in text_of(visitor.get(PAGE))
    assert not downloads(visitor)
    visitor.post(f"{PAGE}/access/ask")
    assert downloads(visitor)


def test_an_open_gate_has_nothing_to_ask(gated, owner, asker):
    author, visitor = sign_in(owner), sign_in(asker)
    author.post(f"{PAGE}/access/gate", {"gated": "open"})
    page = text_of(visitor.post(f"{PAGE}/access/ask", follow=True))
    assert "is not gated" in page
    assert 'id="access"' not in page
    assert "The files are open." in text_of(author.get(f"{PAGE}/access"))
    assert "is not gated" in text_of(decide(author, "bob", "grant"))
    assert downloads(visitor)


def test_a_gate_that_there_is_not_is_refused(gated, owner):
    page = text_of(sign_in(owner).post(f"{PAGE}/access/gate", {"gated": "x"}, follow=True))
    assert "Choose whom" in page
    gated.refresh_from_db()
    assert gated.gated == "manual"


def test_the_owner_lets_in_who_did_not_ask(gated, owner, asker):
    author = sign_in(owner)
    page = text_of(author.post(f"{PAGE}/access/grant", {"user": "BOB"}, follow=True))
    assert "bob is let in" in page
    assert downloads(sign_in(asker))
    for name, told in (("nobody", "no user of this name"), ("ann", "It is yours")):
        answer = author.post(f"{PAGE}/access/grant", {"user": name})
        assert answer.status_code == 422
        assert told in answer.content.decode()
    assert author.post(f"{PAGE}/access/grant", {"user": ""}).status_code == 422


@pytest.mark.parametrize(
    ("user", "decision", "told"),
    [
        ("cat", "grant", "no such request"),
        ("bob", "grant", "has not asked"),
        ("bob", "x", "no such request"),
        ("b\0b", "grant", "no such request"),
    ],
)
def test_what_cannot_be_decided_is_told(gated, owner, asker, user, decision, told):
    assert told in text_of(decide(sign_in(owner), user, decision))


def test_a_decision_twice_is_told(gated, owner, asker):
    services.ask_for_access(gated, asker)
    decide(sign_in(owner), "bob", "grant")
    assert "is granted already" in text_of(decide(sign_in(owner), "bob", "grant"))


def test_the_owner_has_no_need_to_ask(gated, owner):
    page = text_of(sign_in(owner).post(f"{PAGE}/access/ask", follow=True))
    assert "It is yours" in page
    assert not AccessRequest.objects.exists()


def test_a_long_message_is_refused(gated, asker):
    page = text_of(sign_in(asker).post(f"{PAGE}/access/ask", {"message": "x" * 301}, follow=True))
    assert "At most 300 characters" in page


def test_a_private_gated_adapter_is_as_good_as_missing(gated, owner, asker):
    services.ask_for_access(gated, asker)
    services.set_visibility(gated, "private", by=owner)
    visitor = sign_in(asker)
    for part in ("ask", "withdraw"):
        assert visitor.post(f"{PAGE}/access/{part}").status_code == 404
    assert "ann/gated" not in text_of(visitor.get("/adapters/requests"))
    assert visitor.get(API).status_code == 404


@pytest.mark.parametrize(
    "readme",
    ["---\nextra_gated_prompt: [1]\n---\n# A\n", "---\n*a: b\n---\n", "# No front matter\n"],
)
def test_conditions_that_are_none_are_left_out(owner, asker, readme):
    adapter = make_adapter(owner, "other", files=tiny_adapter_files(seed=6, readme=readme))
    services.set_gate(adapter, "manual", by=owner)
    page = text_of(sign_in(asker).get("/ann/other"))
    assert 'id="conditions"' not in page
    assert "Ask for access" in page


def test_a_snippet_says_where_the_token_goes(gated, client):
    page = text_of(client.get(f"{PAGE}?client=peft"))
    assert 'href="/accounts/tokens"' in page
    assert "token=os.environ[&quot;TOKEN&quot;]" in page
    assert "HF_TOKEN" in text_of(client.get(f"{PAGE}?client=hf"))
    assert "Authorization: Bearer $TOKEN" in text_of(client.get(f"{PAGE}?client=curl"))


def test_an_adapter_without_a_readme_has_no_conditions(owner, asker):
    files = tiny_adapter_files(seed=7)
    del files["README.md"]
    adapter = make_adapter(owner, "bare", files=files)
    services.set_gate(adapter, "manual", by=owner)
    assert 'id="conditions"' not in text_of(sign_in(asker).get("/ann/bare"))


def test_whoever_is_not_let_in_has_no_button_for_the_tray(gated, owner, asker):
    assert "Add to tray" not in text_of(sign_in(asker).get(PAGE))
    assert "Add to tray" in text_of(sign_in(owner).get(PAGE))


class TestApi:
    def headers(self, user: User, scope: str = "write") -> dict[str, str]:
        expires_at = timezone.now() + timedelta(days=1)
        name = f"{scope} {ApiToken.objects.count()}"
        token = ApiToken.issue(user=user, name=name, scope=scope, expires_at=expires_at)[1]
        return {"Authorization": f"Bearer {token}"}

    def put(self, client: Client, path: str, body: Any, user: User, scope: str = "write") -> Any:
        headers = self.headers(user, scope)
        return client.put(f"{API}{path}", body, content_type="application/json", headers=headers)

    def test_it_works(self, client, gated, owner, asker):
        headers = self.headers(asker)
        assert client.get(API, headers=headers).status_code == 404
        asked = self.put(client, "", {"message": "Please."}, asker)
        assert (asked.status_code, asked.json()["state"]) == (200, "pending")
        assert client.get(API, headers=headers).json()["message"] == "Please."
        listed = client.get(f"{API}/requests", headers=self.headers(owner, "read")).json()
        assert [row["user"] for row in listed["results"]] == ["bob"]
        granted = self.put(client, "/requests/bob", {"state": "granted"}, owner)
        assert (granted.status_code, granted.json()["state"]) == (200, "granted")
        revoked = self.put(client, "/requests/bob", {"state": "refused"}, owner)
        assert revoked.json()["state"] == "refused"
        assert self.put(client, "/requests/bob", {"state": "pending"}, owner).status_code == 200
        assert state_of(gated, asker) == "pending"
        assert client.delete(API, headers=headers).status_code == 204
        assert not AccessRequest.objects.exists()

    def test_others_decide_nothing(self, client, gated, owner, asker):
        services.ask_for_access(gated, asker)
        granted = {"state": "granted"}
        assert self.put(client, "/requests/bob", granted, asker).status_code == 404
        assert self.put(client, "/requests/bob", granted, owner, "read").status_code == 403
        assert client.put(f"{API}/requests/bob", granted).status_code == 401
        assert client.get(f"{API}/requests").status_code == 401
        assert client.get(f"{API}/requests", headers=self.headers(asker)).status_code == 404
        assert client.put(API, {}).status_code == 401
        assert self.put(client, "", {}, make_user("cat"), "read").status_code == 403
        assert state_of(gated, asker) == "pending"
        assert AccessRequest.objects.count() == 1

    def test_what_is_wrong_is_told(self, client, gated, owner, asker):
        assert self.put(client, "/requests/nobody", {"state": "granted"}, owner).status_code == 404
        assert self.put(client, "/requests/bob", {"state": "refused"}, owner).status_code == 404
        assert self.put(client, "/requests/bob", {"state": "x"}, owner).status_code == 400
        assert self.put(client, "", {"message": "x" * 301}, asker).status_code == 400
        services.set_gate(gated, "open", by=owner)
        assert self.put(client, "", {}, asker).status_code == 400
