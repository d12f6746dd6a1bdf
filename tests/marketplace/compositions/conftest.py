"""A base, three adapters and rows to compose them on; no worker runs, so jobs stay queued."""

from __future__ import annotations

import pytest

from composer.examples import Example
from marketplace.accounts.models import User
from marketplace.catalogue.models import Adapter
from marketplace.compositions.models import CompositionJob
from marketplace.compositions.services import CompositionRequest, start_composition
from tests.factories import make_adapter, make_user

ROWS = [Example(f"word{number}", f"answer{number}") for number in range(8)]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the jobs whose bell was rung; the broker of the run is real, but nobody listens."""
    from marketplace.compositions import tasks

    ids: list[str] = []
    monkeypatch.setattr(tasks.run_composition, "delay", ids.append)
    return ids


@pytest.fixture
def alice(db) -> User:
    return make_user("alice")


@pytest.fixture
def bob(db) -> User:
    return make_user("bob")


@pytest.fixture
def adapters(db) -> list[Adapter]:
    owner = make_user("carol")
    return [make_adapter(owner, f"adapter-{letter}") for letter in "abc"]


@pytest.fixture
def make_request(alice, adapters):
    """Build a request that is right; keywords change it."""

    def build(**changes) -> CompositionRequest:
        given = {
            "owner": alice,
            "revisions": [adapter.latest for adapter in adapters],
            "rows": ROWS,
            "title": "A task",
        }
        return CompositionRequest(**{**given, **changes})

    return build


@pytest.fixture
def job(make_request, sent) -> CompositionJob:
    """A queued job of alice."""
    return start_composition(make_request())
