from __future__ import annotations

import pytest

from marketplace.api_reference import describe_api, group_operations

SCHEMA = {
    "paths": {
        "/api/v1/things/{id}": {
            "get": {
                "operationId": "things_read",
                "tags": ["things"],
                "description": "Read one thing.\n\nIt is slow.",
                "parameters": [
                    {"in": "path", "name": "id", "required": True, "schema": {"type": "integer"}},
                    {"in": "query", "name": "sort", "schema": {"enum": ["a", "b", None]}},
                ],
                "responses": {"404": {}, "200": {"description": "the thing"}},
            },
            "put": {
                "tags": ["things"],
                "summary": "Replace",
                "requestBody": {
                    "content": {
                        "application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}
                    }
                },
            },
        },
        "/api/v1/other": {"delete": {}},
    },
    "components": {
        "schemas": {
            "Thing": {
                "required": ["name"],
                "properties": {
                    "id": {"type": "integer", "readOnly": True},
                    "name": {"type": "string", "description": "its name"},
                    "tags": {"type": "array", "items": {"type": "string", "format": "uuid"}},
                    "kind": {"oneOf": [{"$ref": "#/components/schemas/Kind"}]},
                },
            },
            "Kind": {"enum": ["big", "small"]},
        }
    },
}


def test_it_works():
    things, other = group_operations(SCHEMA)
    read, replace = things.operations

    assert (things.name, other.name) == ("things", "other")
    assert (read.method, read.title, read.description) == ("GET", "Read one thing.", "It is slow.")
    assert read.answers == (("200", "the thing"), ("404", "not here, or not visible to you"))
    assert [(p.name, p.kind, p.required) for p in read.parameters] == [
        ("id", "integer", True),
        ("sort", "a | b", False),
    ]
    assert [(p.name, p.kind, p.required) for p in replace.parameters] == [
        ("name", "string", True),
        ("tags", "list of uuid", False),
        ("kind", "big | small", False),
    ]
    assert replace.title == "Replace"


@pytest.mark.django_db
def test_every_operation_of_the_site_has_a_title():
    untitled = [
        f"{operation.method} {operation.path}"
        for group in describe_api()
        for operation in group.operations
        if not operation.title
    ]

    assert untitled == []
