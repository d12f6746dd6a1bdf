"""The JSON API of jobs."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta

import pytest
from django.utils import timezone

from marketplace.accounts.models import ApiToken, User
from marketplace.catalogue.models import Adapter
from marketplace.compositions.models import CompositionJob
from tests.factories import make_adapter
from tests.marketplace.compositions.finished import finish, search

pytestmark = pytest.mark.django_db
ROWS = [{"input": f"word{n}", "output": f"answer{n}"} for n in range(8)]


def bearer(user: User, scope: str = "write") -> dict[str, str]:
    until = timezone.now() + timedelta(days=1)
    _, text = ApiToken.issue(user=user, name=uuid.uuid4().hex, scope=scope, expires_at=until)
    return {"Authorization": f"Bearer {text}"}


@pytest.fixture
def call(client, alice):
    """Call the API as alice, or as whoever the headers say."""
    own = bearer(alice)

    def send(method, path, body=None, headers=None, **extra):
        answer = client.generic(
            method,
            f"/api/v1/{path}",
            data="" if body is None else json.dumps(body),
            content_type="application/json",
            headers={**(own if headers is None else headers), **extra},
        )
        return answer.status_code, answer.json() if answer.content else None

    return send


@pytest.fixture
def body(adapters):
    return {"adapters": [adapter.full_name for adapter in adapters], "rows": ROWS}


def test_it_works(call, body, sent, alice):
    status, job = call("POST", "jobs", {**body, "budget": 12, "title": "A task"})
    assert status == 202
    assert (job["state"], job["budget"], job["title"]) == ("queued", 12, "A task")
    assert len(job["ingredients"]) == 3
    assert CompositionJob.objects.get().owner == alice
    assert call("GET", f"jobs/{job['id']}")[1]["number"] == 1
    assert call("GET", "jobs")[1]["count"] == 1
    assert call("GET", "jobs?state=failed")[1]["count"] == 0


def test_the_same_key_gives_the_same_job(call, body, sent):
    first = call("POST", "jobs", body, **{"Idempotency-Key": "k1"})[1]["id"]
    second = call("POST", "jobs", body, **{"Idempotency-Key": "k1"})[1]["id"]
    third = call("POST", "jobs", body, **{"Idempotency-Key": "k2"})[1]["id"]
    assert first == second != third


def test_keys_of_others_do_not_collide(call, body, sent, bob):
    first = call("POST", "jobs", body, **{"Idempotency-Key": "k1"})[1]["id"]
    theirs = call("POST", "jobs", body, headers=bearer(bob), **{"Idempotency-Key": "k1"})[1]["id"]
    assert first != theirs


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"rows": []}, "examples"),
        ({"rows": [{"input": "only", "output": " "}]}, "examples"),
        ({"rows": [{"input": "x" * 9000, "output": "y"}]}, "examples"),
        ({"rows": [{"input": f"a{n}", "output": "y"} for n in range(501)]}, "examples"),
        ({"rows": "many"}, "rows"),
        ({"rows": [{"input": "label"}]}, "rows.0.output"),
        ({"adapters": []}, "adapters"),
        ({"adapters": ["carol/missing"]}, "adapters"),
        ({"adapters": ["nothing"]}, "adapters"),
        ({"adapters": ["carol/adapter-a", "carol/adapter-a"]}, "adapters"),
        ({"adapters": ["carol/adapter-a@v9"]}, "adapters"),
        ({"budget": 0}, "budget"),
        ({"budget": 10**9}, "budget"),
        ({"seed": -1}, "seed"),
        ({"optimizer": "Magic"}, "optimizer"),
        ({"merge_method": "blend"}, "merge_method"),
        ({"n_candidates": 21}, "n_candidates"),
        ({"weight_bound": 0}, "weight_bound"),
        ({"n_fit": 9}, "n_fit"),
        ({"hand_weights": {"carol/other": 1}}, "hand_weights"),
        ({"hand_weights": {"carol/adapter-a": 11}}, "hand_weights"),
        ({"hand_weights": {}}, "hand_weights"),
        ({"pick_for_me": True}, "base_model"),
        ({"pick_for_me": True, "base_model": "no/such"}, "base_model"),
    ],
)
def test_what_cannot_be_done_is_refused_by_field(call, body, changes, field):
    status, answer = call("POST", "jobs", {**body, **changes})
    assert status == 400
    assert field in answer["problems"], answer
    assert not CompositionJob.objects.exists()


@pytest.mark.parametrize("text", ["a\x00b", "half \ud800 pair"])
@pytest.mark.parametrize("place", ["row", "title", "instruction", "adapter"])
def test_text_that_no_database_holds_is_refused(call, body, text, place):
    if place == "row":
        body["rows"] = [{"input": text, "output": "x"}]
    elif place == "adapter":
        body["adapters"] = [text]
    else:
        body[place] = text
    status, _ = call("POST", "jobs", body)
    assert status == 400
    assert not CompositionJob.objects.exists()


def test_private_adapters_of_others_answer_like_missing_ones(call, body):
    hidden = make_adapter(name="hidden", visibility="private")
    missing = call("POST", "jobs", {**body, "adapters": ["carol/nothing"]})[1]["error"]
    private = call("POST", "jobs", {**body, "adapters": [hidden.full_name]})[1]["error"]
    assert private.replace(hidden.full_name, "*") == missing.replace("carol/nothing", "*")


def test_adapters_of_another_base_are_refused_together(call, body):
    from tests.factories import make_base_model

    other = make_adapter(name="odd", base_model=make_base_model("other/base"))
    answer = call("POST", "jobs", {**body, "adapters": [*body["adapters"], other.full_name]})[1]
    assert "different base models" in answer["problems"]["adapters"][0]


def test_a_pinned_revision_is_taken(call, body, adapters, sent):
    label = f"{adapters[0].full_name}@{adapters[0].latest.oid}"
    job = call("POST", "jobs", {**body, "adapters": [label]})[1]
    assert job["ingredients"][0]["revision"] == adapters[0].latest.oid


def test_rows_may_come_as_text(call, body, sent):
    del body["rows"]
    job = call("POST", "jobs", {**body, "examples": "a => b\nc => d"})[1]
    assert CompositionJob.objects.get(pk=job["id"]).examples.count() == 2


def test_held_out_rows_may_be_given(call, body, sent):
    job = call("POST", "jobs", {**body, "rows": ROWS[:5], "held_out": ROWS[5:]})[1]
    splits = CompositionJob.objects.get(pk=job["id"]).examples.values_list("split", flat=True)
    assert list(splits) == ["fit"] * 5 + ["held_out"] * 3


def test_a_check_starts_nothing(call, body):
    status, answer = call("POST", "jobs/check", {**body, "budget": 0})
    assert status == 200
    assert "budget" in answer["problems"]
    assert (answer["adapters"], answer["n_fit"], answer["n_held_out"]) == (3, 5, 3)
    assert answer["methods"]["concat"] == []
    assert not CompositionJob.objects.exists()


def test_evaluations_are_read_on_from_a_number(call, job):
    search(job)
    assert call("GET", f"jobs/{job.pk}/evaluations")[1]["count"] == 13
    later = call("GET", f"jobs/{job.pk}/evaluations?after=10")[1]["results"]
    assert [row["number"] for row in later] == [11, 12]
    assert call("GET", f"jobs/{job.pk}/evaluations?after=x")[1]["count"] == 13


def test_cancel_retry_clone(call, job):
    assert call("POST", f"jobs/{job.pk}/cancel")[1]["state"] == "cancelled"
    assert call("POST", f"jobs/{job.pk}/cancel")[1]["state"] == "cancelled"
    assert call("POST", f"jobs/{job.pk}/retry")[0] == 202
    assert call("POST", f"jobs/{job.pk}/retry")[0] == 400
    first = call("POST", f"jobs/{job.pk}/clone", **{"Idempotency-Key": "c"})[1]["id"]
    second = call("POST", f"jobs/{job.pk}/clone", **{"Idempotency-Key": "c"})[1]["id"]
    assert first == second != str(job.pk)


def test_report_files_and_publishing(call, client, alice, job):
    assert call("GET", f"jobs/{job.pk}/report")[0] == 404
    finish(job)
    assert call("GET", f"jobs/{job.pk}/report")[1]["n_held_out"] == 3
    files = call("GET", f"jobs/{job.pk}/files")[1]["results"]
    assert {"path", "size", "sha256"} == set(files[0])
    answer = client.get(f"/api/v1/jobs/{job.pk}/files/recipe.json", headers=bearer(alice, "read"))
    assert b"".join(answer.streaming_content) == b"{}"
    status, published = call("POST", f"jobs/{job.pk}/publish", {"name": "vehicles"})
    assert (status, published["published"]) == (201, "alice/vehicles")
    assert Adapter.objects.get(name="vehicles").licence == "Apache-2.0"
    assert call("POST", f"jobs/{job.pk}/publish", {})[1]["published"] == "alice/vehicles"


def test_rows_are_deleted_on_request(call, job):
    assert call("DELETE", f"jobs/{job.pk}/examples")[0] == 400
    finish(job)
    assert call("DELETE", f"jobs/{job.pk}/examples")[0] == 204
    assert not job.examples.exists()


@pytest.mark.parametrize(
    ("method", "suffix"),
    [
        ("GET", ""),
        ("GET", "/evaluations"),
        ("GET", "/report"),
        ("GET", "/files"),
        ("GET", "/files/recipe.json"),
        ("POST", "/cancel"),
        ("POST", "/retry"),
        ("POST", "/clone"),
        ("POST", "/publish"),
        ("DELETE", "/examples"),
    ],
)
def test_a_job_of_others_is_missing(call, bob, job, method, suffix):
    finish(job)
    theirs = call(method, f"jobs/{job.pk}{suffix}", {}, headers=bearer(bob))
    nothing = call(
        method, f"jobs/00000000-0000-0000-0000-000000000000{suffix}", {}, headers=bearer(bob)
    )
    assert theirs[0] == nothing[0] == 404
    assert theirs[1]["error"] == nothing[1]["error"]


def test_reading_takes_a_user_and_writing_a_writing_token(call, alice, body, job):
    assert call("GET", "jobs", headers={})[0] in {401, 403}
    assert call("GET", f"jobs/{job.pk}", headers={})[0] in {401, 403}
    read_only = bearer(alice, "read")
    assert call("GET", "jobs", headers=read_only)[0] == 200
    assert call("POST", "jobs", body, headers=read_only)[0] == 403
    assert call("POST", f"jobs/{job.pk}/cancel", headers=read_only)[0] == 403
