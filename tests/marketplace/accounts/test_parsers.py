from __future__ import annotations

import io

import pytest

from marketplace.accounts.parsers import BodyTooLarge, StrictJsonParser

pytestmark = pytest.mark.django_db
TOKENS = "/api/v1/tokens"


@pytest.fixture
def post(client, ann):
    client.force_login(ann)
    return lambda body: client.post(TOKENS, body, "application/json")


def test_it_works(post):
    assert post(b'{"name": "laptop"}').status_code == 201


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"name": NaN}', "NaN"),
        (b'{"name": "a", "name": "b"}', "'name' stands twice"),
        (b'{"name": "\xff"}', "not valid JSON"),
        (b'["laptop"]', "one JSON object"),
        (b"null", "one JSON object"),
        (b"{", "not valid JSON"),
        (b'{"days": ' + b"9" * 5000 + b"}", "not valid JSON"),
    ],
)  # fmt: skip
def test_it_refuses_odd_json_with_a_reason(post, body, reason):
    answer = post(body)
    assert answer.status_code == 400
    assert reason in answer.json()["error"]


@pytest.mark.parametrize("way", ["session", "token"])
def test_it_reads_no_more_than_the_limit(client, ann, issue, settings, way):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000
    headers = {"Authorization": f"Bearer {issue(ann)}"} if way == "token" else {}
    if way == "session":
        client.force_login(ann)
    body = b'{"name": "' + b"x" * 1000 + b'"}'
    answer = client.post(TOKENS, body, "application/json", headers=headers)
    assert answer.status_code == 413
    assert "1000 bytes" in answer.json()["error"]


def test_a_body_of_unknown_length_is_read_up_to_the_limit_only(settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000
    stream = io.BytesIO(b" " * 5000)
    with pytest.raises(BodyTooLarge):
        StrictJsonParser().parse(stream)
    assert stream.tell() == 1001
