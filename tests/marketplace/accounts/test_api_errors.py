from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404
from rest_framework.exceptions import Throttled
from rest_framework.exceptions import ValidationError as ApiValidationError

from composer.errors import InvalidAdapter, Problem
from marketplace.accounts.api_errors import Refused, handle_api_error
from marketplace.accounts.services import AccountError


def answer(error: Exception):
    response = handle_api_error(error, {})
    assert response is not None
    return response.status_code, response.data


def test_it_works():
    assert answer(Refused({"name": ["Too long."]})) == (
        400,
        {"error": "Too long.", "problems": {"name": ["Too long."]}},
    )


def test_a_service_may_ask_for_another_status():
    assert answer(Refused({"name": ["Taken."]}, code=409))[0] == 409


def test_problems_of_services_pass_through():
    status, body = answer(AccountError({"": ["Full."], "name": ["Taken."]}))
    assert status == 400
    assert body == {"error": "Full. Taken.", "problems": {"": ["Full."], "name": ["Taken."]}}


def test_problems_of_the_composer_are_sorted_by_field_or_file():
    problems = [
        Problem("adapter_config.json", "r", "0 is too small.", "Use 1 to 256."),
        Problem("adapter_config.json", "r", "It is missing."),
        Problem("adapter_model.safetensors", "", "It is cut off."),
    ]
    status, body = answer(InvalidAdapter(problems))
    assert status == 400
    assert body["problems"] == {
        "r": [
            "adapter_config.json, r: 0 is too small. Use 1 to 256.",
            "adapter_config.json, r: It is missing.",
        ],
        "adapter_model.safetensors": ["adapter_model.safetensors: It is cut off."],
    }


def test_nested_fields_are_named_by_their_path():
    detail: Any = {"rows": [{}, {"input": ["Empty."]}], "seed": ["Not a number."]}
    _, body = answer(ApiValidationError(detail))
    assert body == {
        "error": "Some fields need another value; see problems.",
        "problems": {"rows.1.input": ["Empty."], "seed": ["Not a number."]},
    }


def test_problems_of_no_field_are_the_sentence():
    _, body = answer(ApiValidationError({"non_field_errors": ["Both are wrong."]}))
    assert body == {"error": "Both are wrong.", "problems": {"": ["Both are wrong."]}}


@pytest.mark.parametrize(
    ("error", "problems"),
    [
        (ValidationError({"name": ["Bad."]}), {"name": ["Bad."]}),
        (ValidationError("Bad."), {"": ["Bad."]}),
    ],
)
def test_validation_of_models_is_400(error, problems):
    status, body = answer(error)
    assert (status, body["problems"]) == (400, problems)


def test_what_is_missing_and_what_is_hidden_read_alike():
    assert answer(Http404("secret name"))[1] == answer(Http404())[1]
    assert "secret" not in str(answer(Http404("secret name")))


def test_a_reason_against_a_permission_is_told():
    assert answer(PermissionDenied("Only the owner may."))[1]["error"] == "Only the owner may."
    assert answer(PermissionDenied())[1]["error"]


def test_a_throttled_client_hears_when_to_come_back():
    response = handle_api_error(Throttled(wait=7.5), {})
    assert response is not None
    assert response.status_code == 429
    assert response["Retry-After"] == "8"
    assert "t=8" in response["RateLimit"]


def test_a_bug_is_left_to_the_500_page():
    assert handle_api_error(ZeroDivisionError(), {}) is None


@pytest.mark.django_db
def test_an_unknown_address_below_api_answers_in_the_same_form(client):
    answered = client.get("/api/v1/nothing/here")
    assert answered.status_code == 404
    assert set(answered.json()) == {"error", "request_id"}


@pytest.mark.django_db
def test_the_rate_of_anonymous_requests_is_limited(client, monkeypatch):
    from rest_framework.throttling import AnonRateThrottle

    monkeypatch.setattr(AnonRateThrottle, "get_rate", lambda self: "2/min")
    answers = [
        client.get("/api/v1/adapters", headers={"X-Forwarded-For": f"10.0.0.{n}"}) for n in range(3)
    ]
    assert [a.status_code for a in answers] == [200, 200, 429]
    assert int(answers[-1]["Retry-After"]) <= 60
