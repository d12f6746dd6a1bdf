"""Each row of the protocol's table of errors, in the words that the stock clients look for."""

from __future__ import annotations

import json

import httpx2
import pytest
from huggingface_hub import errors as client_errors
from huggingface_hub.utils import hf_raise_for_status

from marketplace.hub import errors
from tests.factories import make_adapter

ROWS = [
    (errors.RepoNotFound(signed_in=False), 401, client_errors.RepositoryNotFoundError),
    (errors.RepoNotFound(signed_in=True), 404, client_errors.RepositoryNotFoundError),
    (errors.Gated("a/b", signed_in=False), 401, client_errors.GatedRepoError),
    (errors.Gated("a/b", signed_in=True), 403, client_errors.GatedRepoError),
    (errors.RevisionNotFound("x"), 404, client_errors.RevisionNotFoundError),
    (errors.EntryNotFound("no such file"), 404, client_errors.RemoteEntryNotFoundError),
    (errors.BadToken(), 401, client_errors.HfHubHTTPError),
    (errors.NotAllowed("not yours"), 403, client_errors.HfHubHTTPError),
    (errors.BadRequest("bad body"), 400, client_errors.BadRequestError),
    (errors.Conflict("there already"), 409, client_errors.HfHubHTTPError),
    (errors.StaleParent("moved on"), 412, client_errors.HfHubHTTPError),
    (errors.TooMany("slowly", seconds=7), 429, client_errors.HfHubHTTPError),
    (errors.NoRoom("full"), 507, client_errors.HfHubHTTPError),
]


def as_client_sees(error: errors.HubError) -> httpx2.Response:
    answer = error.to_response()
    return httpx2.Response(
        answer.status_code,
        headers=dict(answer.items()),
        content=answer.content,
        request=httpx2.Request("POST", "http://site/api/models/a/b/commit/main"),
    )


@pytest.mark.parametrize(("error", "status", "raised"), ROWS)
def test_it_works(error, status, raised):
    with pytest.raises(client_errors.HfHubHTTPError) as caught:
        hf_raise_for_status(as_client_sees(error), endpoint_name="commit")
    assert type(caught.value) is raised
    assert caught.value.response.status_code == status


def test_who_asks_too_often_is_told_when_to_come_back():
    assert errors.TooMany("slowly", seconds=7).to_response()["Retry-After"] == "7"


@pytest.mark.parametrize("count", [1, 3, 60])
def test_every_problem_is_shown_once(count):
    problems = [f"file{number}. “x” is missing" for number in range(count)]
    with pytest.raises(client_errors.BadRequestError) as caught:
        hf_raise_for_status(as_client_sees(errors.BadRequest(" | ".join(problems))))
    text = str(caught.value)
    assert [text.count(f"file{number}. ") for number in range(count)] == [1] * count


def test_too_many_commits_are_refused_before_they_are_read(client, alice, as_alice, settings):
    settings.HUB_COMMITS_PER_HOUR = 1
    make_adapter(alice, "adapter")
    line = json.dumps({"key": "header", "value": {"summary": "Nothing"}})
    answers = [
        client.post(
            "/api/models/alice/adapter/commit/main",
            line,
            content_type="application/x-ndjson",
            headers=as_alice,
        )
        for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert int(answers[1]["Retry-After"]) > 0
