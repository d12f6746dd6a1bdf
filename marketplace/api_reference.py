"""The API reference page: the OpenAPI schema of drf-spectacular as plain rows for a template.

The usual viewers need inline scripts, which our content security policy forbids; a table of
operations needs none. The schema itself stays the views' affair and is served at /api/v1/schema.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from drf_spectacular.generators import SchemaGenerator

METHODS = ("get", "post", "put", "patch", "delete")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One thing an operation takes, from the path, the query or the body."""

    name: str
    place: str
    kind: str
    required: bool
    description: str


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one address."""

    anchor: str
    method: str
    path: str
    title: str
    description: str
    parameters: tuple[Parameter, ...]
    answers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Group:
    """The operations of one subject."""

    name: str
    operations: tuple[Operation, ...]


@lru_cache(maxsize=1)
def describe_api() -> tuple[Group, ...]:
    """Return all operations of the site's API, grouped; computed once a process."""
    generator: Any = SchemaGenerator  # untyped
    return group_operations(generator().get_schema(request=None, public=True))


def group_operations(schema: dict[str, Any]) -> tuple[Group, ...]:
    """Turn an OpenAPI schema into groups, in the order of its addresses."""
    groups: dict[str, list[Operation]] = {}
    for path, methods in schema.get("paths", {}).items():
        for method in METHODS:
            if method in methods:
                tag = next(iter(methods[method].get("tags", ())), "other")
                operation = _read_operation(path, method, methods[method], schema)
                groups.setdefault(tag, []).append(operation)
    return tuple(Group(name, tuple(operations)) for name, operations in groups.items())


def _read_operation(
    path: str, method: str, raw: dict[str, Any], schema: dict[str, Any]
) -> Operation:
    description = raw.get("description", "").strip()
    title, _, rest = description.partition("\n")
    return Operation(
        anchor=raw.get("operationId", f"{method}-{path}"),
        method=method.upper(),
        path=path,
        title=raw.get("summary") or title,
        description=rest.strip() if not raw.get("summary") else description,
        parameters=(*_read_parameters(raw), *_read_body(raw, schema)),
        answers=tuple(
            (code, answer.get("description") or _STATUS_WORDS.get(code, ""))
            for code, answer in sorted(raw.get("responses", {}).items())
        ),
    )


_STATUS_WORDS = {
    "200": "done",
    "201": "created",
    "202": "queued",
    "204": "done, no body",
    "400": "refused, with every reason",
    "401": "no token, or not a valid one",
    "403": "the token may not do this",
    "404": "not here, or not visible to you",
    "409": "not in this state",
    "413": "too large",
    "429": "too many requests",
}


def _read_parameters(raw: dict[str, Any]) -> tuple[Parameter, ...]:
    return tuple(
        Parameter(
            name=item["name"],
            place=item["in"],
            kind=_name_type(item.get("schema", {})),
            required=bool(item.get("required")),
            description=item.get("description", ""),
        )
        for item in raw.get("parameters", ())
    )


def _read_body(raw: dict[str, Any], schema: dict[str, Any]) -> tuple[Parameter, ...]:
    contents: dict[str, dict[str, Any]] = raw.get("requestBody", {}).get("content", {})
    body = _resolve(next(iter(contents.values()), {}).get("schema", {}), schema)
    required = set(body.get("required", ()))
    return tuple(
        Parameter(
            name=name,
            place="body",
            kind=_name_type(_resolve(item, schema)),
            required=name in required,
            description=item.get("description", ""),
        )
        for name, item in body.get("properties", {}).items()
        if not item.get("readOnly")
    )


def _resolve(item: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Follow a ``$ref`` (or an ``allOf`` or ``oneOf`` around one) into the components."""
    for wrapper in ("allOf", "oneOf", "anyOf"):
        if item.get(wrapper):
            item = item[wrapper][0]
    reference = item.get("$ref", "")
    if not reference:
        return item
    name = reference.rpartition("/")[2]
    found: dict[str, Any] = schema.get("components", {}).get("schemas", {}).get(name, {})
    return found


def _name_type(item: dict[str, Any]) -> str:
    if item.get("enum"):
        return " | ".join(str(value) for value in item["enum"] if value not in (None, ""))
    kind = str(item.get("format") or item.get("type") or "object")
    if item.get("type") == "array":
        return f"list of {_name_type(item.get('items', {}))}"
    return kind
