"""The JSON bodies of the wire: strict, an object, with fields of the types that are expected."""

from __future__ import annotations

from typing import Any, TypeVar

from django.http import HttpRequest

from composer.strict_json import JSONError, parse_json
from marketplace.hub.errors import BadRequest

_Kind = TypeVar("_Kind")


def read_object(request: HttpRequest) -> dict[str, Any]:
    """Return the JSON object of a request; an empty body is an empty object.

    Raises:
        BadRequest: it is anything else.
    """
    body = request.body
    if not body.strip():
        return {}
    try:
        value = parse_json(body)
    except JSONError as error:
        raise BadRequest(f"The body is not valid JSON: {error}.") from None
    if not isinstance(value, dict):
        raise BadRequest("The body has to be a JSON object.")
    return value


def read_field(body: dict[str, Any], name: str, kind: type[_Kind], default: _Kind) -> _Kind:
    """Return a field; one that is missing or null is the default.

    Raises:
        BadRequest: it is of another type.
    """
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise BadRequest(f"“{name}” has to be of type {kind.__name__}.")
    return value
