"""The one form that errors of the JSON API have.

`{"error": "<sentence>", "problems": {"<field>": ["<sentence>", …]}, "request_id": "…"}`; `problems`
is there where fields are to blame. Services and the composer raise errors that carry `.problems`,
for the user to read: these become a 400 as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.core.exceptions import PermissionDenied, RequestDataTooBig, ValidationError
from django.http import Http404
from rest_framework import status
from rest_framework.exceptions import APIException, Throttled
from rest_framework.exceptions import ValidationError as ApiValidationError
from rest_framework.response import Response
from rest_framework.views import exception_handler

from marketplace.accounts.parsers import BodyTooLarge
from marketplace.request_ids import read_id

_NOT_FOUND = "There is nothing here, or nothing that you may see."
_CHECK_FIELDS = "Some fields need another value; see problems."


class Refused(APIException):
    """400 with problems by field, from a service's error."""

    status_code: int = status.HTTP_400_BAD_REQUEST

    def __init__(self, problems: Mapping[str, Sequence[str]], *, code: int = 400) -> None:
        super().__init__(" ".join(text for texts in problems.values() for text in texts))
        self.problems = {name: [str(text) for text in texts] for name, texts in problems.items()}
        self.status_code = code  # any 4xx


def handle_api_error(error: Exception, context: dict[str, Any]) -> Response | None:
    """Turn an exception of a view into our form; None leaves a bug to the 500 page."""
    error = _translate(error)
    response = exception_handler(error, context)
    if response is None:
        return None
    body: dict[str, Any] = {"error": _sentence(error)}
    problems = _problems(error)
    if problems:
        body["problems"] = problems
    request = context.get("request")
    if request is not None:
        body["request_id"] = read_id(getattr(request, "_request", request))
    if isinstance(error, Throttled) and "Retry-After" in response:
        response["RateLimit"] = f'"default";r=0;t={response["Retry-After"]}'
    response.data = body
    return response


def _translate(error: Exception) -> Exception:
    """Make what Django and the services raise something that DRF answers."""
    if isinstance(error, ValidationError):
        return ApiValidationError(_by_field(error))
    if isinstance(error, RequestDataTooBig):
        return BodyTooLarge()
    problems = getattr(error, "problems", None)
    if problems and not isinstance(error, APIException):
        return Refused(problems if isinstance(problems, Mapping) else _group(problems))
    return error


def _group(problems: Sequence[Any]) -> dict[str, list[str]]:
    """Sort the composer's problems by the field, else the file, that each one names."""
    found: dict[str, list[str]] = {}
    for problem in problems:
        place = getattr(problem, "field", "") or getattr(problem, "file", "")
        found.setdefault(place, []).append(str(problem))
    return found


def _sentence(error: Exception) -> str:
    if isinstance(error, Http404):
        return _NOT_FOUND
    if isinstance(error, PermissionDenied):
        return str(error) or "You may not do this."
    if isinstance(error, ApiValidationError):
        problems = _problems(error)
        texts = [text for texts in problems.values() for text in texts]
        return " ".join(texts) if set(problems) == {""} else _CHECK_FIELDS
    return str(getattr(error, "detail", error))


def _problems(error: Exception) -> dict[str, list[str]]:
    if isinstance(error, Refused):
        return error.problems
    if isinstance(error, ApiValidationError):
        return _flatten(error.detail)
    return {}


def _flatten(detail: Any, prefix: str = "") -> dict[str, list[str]]:
    """Turn DRF's nested lists and dicts into `field.subfield` -> sentences."""
    if isinstance(detail, Mapping):
        found: dict[str, list[str]] = {}
        for name, value in detail.items():
            key = "" if name == "non_field_errors" else str(name)
            found |= _flatten(value, f"{prefix}.{key}".strip("."))
        return found
    if isinstance(detail, list) and any(isinstance(item, (Mapping, list)) for item in detail):
        found = {}
        for number, item in enumerate(detail):
            if item:
                found |= _flatten(item, f"{prefix}.{number}".strip("."))
        return found
    items = detail if isinstance(detail, list) else [detail]
    return {prefix: [str(item) for item in items]}


def _by_field(error: ValidationError) -> dict[str, list[str]]:
    if hasattr(error, "error_dict"):
        return error.message_dict
    return {"non_field_errors": error.messages}
