from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from marketplace.accounts.models import ApiToken
from marketplace.accounts.services import revoke_all_tokens

pytestmark = pytest.mark.django_db
ME = "/api/v1/me"


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def test_it_works(client, ann, issue):
    answer = client.get(ME, headers=bearer(issue(ann)))
    assert answer.status_code == 200
    assert answer.json()["username"] == "Ann"


def test_the_scheme_may_be_written_in_any_case(client, ann, issue):
    assert client.get(ME, headers={"Authorization": f"bEARER {issue(ann)}"}).status_code == 200


def test_without_identity_the_answer_is_401_and_names_the_scheme(client):
    answer = client.get(ME)
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"] == "Bearer"
    assert answer.json()["error"]
    assert answer.json()["request_id"] == answer["X-Request-Id"]


def spoil(text: str) -> list[str]:
    other = "a" if text[-1] != "a" else "b"
    return [
        "", "x", text[:-1], text + "a", text[:-1] + other, text.replace("lm_", "lx_", 1),
        text[:5] + other * 11 + text[16:], text + " " + text, "\x00" + text, text[:20] + "\x00",
        "tökén", "lm_" + "é" * 12 + "_" + "a" * 43, "𝓁𝓂", text * 20_000, "lm__", "lm_a_b",
    ]  # fmt: skip


def test_every_spoilt_token_is_401(client, ann, issue):
    text = issue(ann)
    answers = [client.get(ME, headers=bearer(spoilt)) for spoilt in spoil(text)]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.json()["error"] for answer in answers}) == 1


def test_an_expired_token_is_refused(client, ann, issue):
    assert client.get(ME, headers=bearer(issue(ann, days=-0.001))).status_code == 401


def test_a_revoked_token_is_refused_at_once(client, ann, issue):
    text = issue(ann)
    revoke_all_tokens(ann)
    assert client.get(ME, headers=bearer(text)).status_code == 401


def test_the_token_of_an_inactive_user_is_refused(client, ann, issue):
    text = issue(ann)
    ann.is_active = False
    ann.save()
    assert client.get(ME, headers=bearer(text)).status_code == 401


def test_an_unknown_token_is_refused_even_where_nobody_need_sign_in(client):
    assert client.get("/api/v1/adapters", headers=bearer("lm_wrong")).status_code == 401
    assert client.get("/api/v1/adapters").status_code == 200


@pytest.mark.parametrize("place", ["query", "cookie", "basic", "x-api-key", "token scheme"])
def test_a_token_counts_nowhere_but_in_the_bearer_header(client, ann, issue, place):
    import base64

    text = issue(ann)
    headers, path = {}, ME
    if place == "query":
        path = f"{ME}?token={text}&access_token={text}"
    elif place == "cookie":
        client.cookies["token"] = text
    elif place == "basic":
        pair = base64.b64encode(f"Ann:{text}".encode()).decode()
        headers = {"Authorization": f"Basic {pair}"}
    elif place == "x-api-key":
        headers = {"X-Api-Key": text}
    else:
        headers = {"Authorization": f"Token {text}"}
    assert client.get(path, headers=headers).status_code == 401


def test_use_is_noted_at_most_once_a_minute(client, ann, issue):
    text = issue(ann)
    client.get(ME, headers=bearer(text))
    first = ApiToken.objects.get().last_used_at
    client.get(ME, headers=bearer(text))
    assert first is not None
    assert ApiToken.objects.get().last_used_at == first
    ApiToken.objects.update(last_used_at=timezone.now() - timedelta(seconds=61))
    client.get(ME, headers=bearer(text))
    latest = ApiToken.objects.get().last_used_at
    assert latest is not None
    assert latest > first


def test_only_a_hash_is_kept(ann, issue):
    text = issue(ann)
    secret = text.rpartition("_")[2]
    row = ApiToken.objects.values().get()
    assert len(row["secret_hash"]) == 64
    assert not any(secret in str(value) for value in row.values())
    assert secret not in str(ApiToken.objects.get())


def test_beside_a_token_the_cookies_are_ignored(client, ann, bob, issue):
    client.force_login(ann)
    answer = client.get(ME, headers=bearer(issue(bob)))
    assert answer.json()["username"] == "bob"
    assert client.get(ME, headers=bearer("lm_wrong")).status_code == 401
    assert client.get(ME, headers={"Authorization": "Basic eDp5"}).status_code == 401


def test_the_session_works_for_reading(client, ann):
    client.force_login(ann)
    assert client.get(ME).json()["username"] == "Ann"


def test_a_session_needs_the_csrf_token_to_write(ann):
    client = Client(enforce_csrf_checks=True)
    client.force_login(ann)
    new = {"name": "laptop"}
    kind = "application/json"
    refused = client.post("/api/v1/tokens", new, kind)
    assert refused.status_code == 403
    assert "CSRF" in refused.json()["error"]
    client.get("/accounts/tokens")
    headers = {"X-CSRFToken": client.cookies["csrftoken"].value}
    assert client.post("/api/v1/tokens", new, kind, headers=headers).status_code == 201


def test_a_token_needs_no_csrf(ann, issue):
    client = Client(enforce_csrf_checks=True)
    answer = client.post(
        "/api/v1/tokens", {"name": "new"}, "application/json", headers=bearer(issue(ann))
    )
    assert answer.status_code == 201


def test_a_read_token_cannot_write(client, ann, issue):
    headers = bearer(issue(ann, scope="read"))
    assert client.get(ME, headers=headers).status_code == 200
    answer = client.post("/api/v1/tokens", {"name": "n"}, "application/json", headers=headers)
    assert answer.status_code == 403
    assert "read and write" in answer.json()["error"]
    assert ApiToken.objects.count() == 1
