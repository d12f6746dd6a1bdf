"""The list of models: what is in it, in which order, and where the next page is."""

from __future__ import annotations

import pytest

from marketplace.catalogue.models import Adapter
from tests.factories import make_adapter


def ids(response) -> list[str]:
    assert response.status_code == 200
    return [model["id"] for model in response.json()]


def test_it_works(client, alice):
    make_adapter(alice, "adapter")
    assert ids(client.get("/api/models")) == ["alice/adapter"]


def test_an_owner_also_lists_what_has_no_accepted_revision_yet(client, alice, as_alice):
    Adapter.objects.create(owner=alice, name="begun")
    assert ids(client.get("/api/models")) == []
    assert ids(client.get("/api/models", headers=as_alice)) == ["alice/begun"]


@pytest.mark.parametrize(
    "switch", ["full=true", "cardData=true", "config=True", "expand=tags&expand=siblings"]
)
def test_a_list_says_more_when_asked(client, alice, switch):
    make_adapter(alice, "adapter")
    assert ids(client.get(f"/api/models?{switch}")) == ["alice/adapter"]


@pytest.mark.parametrize(
    "sort", ["downloads", "likes", "lastModified", "createdAt", "trendingScore"]
)
def test_pages_hold_each_model_once(client, alice, sort):
    for number in range(5):
        make_adapter(alice, f"adapter{number}")
    found, address = [], f"/api/models?limit=2&sort={sort}"
    while address:
        response = client.get(address)
        found += ids(response)
        link = response.headers.get("Link", "")
        address = link.partition("<")[2].partition(">")[0].partition("/api")[2]
        address = f"/api{address}" if address else ""
    assert sorted(found) == [f"alice/adapter{number}" for number in range(5)]
