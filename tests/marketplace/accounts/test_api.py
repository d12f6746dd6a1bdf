from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from marketplace.accounts.models import ApiToken
from marketplace.accounts.services import MAX_TOKENS

pytestmark = pytest.mark.django_db
TOKENS = "/api/v1/tokens"
JSON = "application/json"


def test_it_works(client, ann):
    client.force_login(ann)
    made = client.post(TOKENS, {"name": "laptop", "scope": "write", "days": 30}, JSON)
    assert made.status_code == 201
    text = made.json()["token"]
    me = client.get("/api/v1/me", headers={"Authorization": f"Bearer {text}"})
    assert me.json()["email"] == "ann@example.org"
    assert client.delete(f"{TOKENS}/{made.json()['id']}").status_code == 204
    assert ApiToken.objects.count() == 0


def test_the_secret_is_told_once(client, ann):
    client.force_login(ann)
    secret = client.post(TOKENS, {"name": "laptop"}, JSON).json()["token"].rpartition("_")[2]
    listed = client.get(TOKENS)
    assert [token["name"] for token in listed.json()] == ["laptop"]
    assert secret not in listed.content.decode()


def test_a_token_reads_only_and_lives_90_days_unless_told_otherwise(client, ann):
    client.force_login(ann)
    client.post(TOKENS, {"name": "laptop"}, JSON)
    token = ApiToken.objects.get()
    assert token.scope == "read"
    assert abs(token.expires_at - timezone.now() - timedelta(days=90)) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x" * 61}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"name": "\ud800"}, "name"),
        ({"name": "x", "scope": "admin"}, "scope"),
        ({"name": "x", "days": 366}, "days"),
        ({"name": "x", "days": 0}, "days"),
        ({"name": "x", "days": "soon"}, "days"),
    ],
)
def test_it_names_the_field_that_is_wrong(client, ann, body, field):
    client.force_login(ann)
    answer = client.post(TOKENS, body, JSON)
    assert answer.status_code == 400
    assert list(answer.json()["problems"]) == [field]


def test_owner_and_secret_cannot_be_chosen(client, ann, bob):
    client.force_login(ann)
    body = {"name": "x", "user": bob.pk, "key": "0" * 12, "secret_hash": "0" * 64, "id": 999}
    made = client.post(TOKENS, body, JSON).json()
    token = ApiToken.objects.get()
    assert (token.user, token.pk) == (ann, made["id"])
    assert token.key != "0" * 12
    assert token.pk != 999


def test_two_tokens_of_one_user_differ_in_name(client, ann):
    client.force_login(ann)
    client.post(TOKENS, {"name": "laptop"}, JSON)
    answer = client.post(TOKENS, {"name": "laptop"}, JSON)
    assert answer.status_code == 400
    assert list(answer.json()["problems"]) == ["name"]


def test_there_is_a_most(client, ann, issue):
    for number in range(MAX_TOKENS):
        issue(ann, name=f"token {number}")
    client.force_login(ann)
    answer = client.post(TOKENS, {"name": "one more"}, JSON)
    assert answer.status_code == 400
    assert "20 tokens" in answer.json()["error"]
    assert ApiToken.objects.count() == MAX_TOKENS


def test_another_users_token_cannot_be_found(client, ann, bob, issue):
    issue(ann)
    client.force_login(bob)
    assert client.get(TOKENS).json() == []
    pk = ApiToken.objects.get().pk
    assert client.delete(f"{TOKENS}/{pk}").status_code == 404
    assert client.delete(f"{TOKENS}/{pk + 999}").status_code == 404
    assert ApiToken.objects.count() == 1


@pytest.mark.parametrize("method", ["get", "post"])
def test_anonymous_visitors_have_no_tokens(client, method):
    assert getattr(client, method)(TOKENS).status_code == 401
    assert client.delete(f"{TOKENS}/1").status_code == 401


def test_the_schema_describes_both_ways_to_sign_in():
    from drf_spectacular.generators import SchemaGenerator

    schema = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    schemes = schema["components"]["securitySchemes"]
    assert schemes["token"]["scheme"] == "bearer"
    assert schemes["session"]["in"] == "cookie"
    assert {"token": []} in schema["paths"]["/api/v1/me"]["get"]["security"]
