"""Requests are counted while there is something to count in, and served in any case."""

from __future__ import annotations

import pytest
import redis
from django.core.cache import cache
from rest_framework.throttling import AnonRateThrottle

from marketplace.accounts.throttling import AnonymousThrottle

pytestmark = pytest.mark.django_db


def test_it_works(client, monkeypatch):
    monkeypatch.setattr(AnonRateThrottle, "get_rate", lambda self: "1/min")

    answers = [client.get("/api/v1/adapters") for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 429]


@pytest.mark.parametrize("error", [redis.ConnectionError("refused"), TimeoutError("silent")])
def test_without_the_cache_the_api_goes_on(client, monkeypatch, caplog, error):
    def fail(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(AnonymousThrottle, "cache", type("Away", (), {"get": fail, "set": fail})())

    assert client.get("/api/v1/adapters").status_code == 200
    assert "not counted" in caplog.text


@pytest.fixture(autouse=True)
def nothing_counted():
    cache.clear()
    yield
    cache.clear()
