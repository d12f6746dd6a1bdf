from __future__ import annotations

from django.core.cache import cache

from marketplace.accounts.limits import Limit
from marketplace.client_addresses import client_address

AWAY = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": "redis://127.0.0.1:1/0",
    }
}


def test_it_works():
    limit = Limit("tries", 2, 60)
    assert [limit.use("ann") for _ in range(3)] == [True, True, False]
    assert limit.is_used_up("ann")


def test_each_key_and_each_limit_is_counted_by_itself():
    Limit("tries", 1, 60).use("ann")
    assert Limit("tries", 1, 60).use("bob")
    assert Limit("others", 1, 60).use("ann")


def test_asking_does_not_count():
    limit = Limit("tries", 1, 60)
    assert not limit.is_used_up("ann")
    assert not limit.is_used_up("ann")
    assert limit.use("ann")


def test_the_count_ends_with_its_time():
    limit = Limit("tries", 1, 60)
    limit.use("ann")
    cache.clear()
    assert limit.use("ann")


def test_a_count_that_runs_out_while_it_is_read_refuses_nobody(monkeypatch):
    monkeypatch.setattr(cache, "add", lambda *_: True)
    assert Limit("tries", 0, 60).use("nobody")


def test_keys_cannot_be_read_from_the_cache():
    assert "ann@example.org" not in Limit("tries", 1, 60)._place("ann@example.org")


def test_without_the_cache_nothing_is_refused(settings, caplog):
    settings.CACHES = AWAY
    limit = Limit("tries", 1, 60)
    assert limit.use("ann")
    assert limit.use("ann")
    assert not limit.is_used_up("ann")
    assert "not counted" in caplog.text


def test_a_forwarded_address_counts_only_behind_a_trusted_proxy(rf, settings):
    request = rf.get("/", headers={"X-Forwarded-For": "6.6.6.6, 7.7.7.7"}, REMOTE_ADDR="1.1.1.1")
    assert client_address(request) == "1.1.1.1"
    settings.TRUSTED_PROXIES = 1
    assert client_address(request) == "7.7.7.7"
    assert client_address(rf.get("/", REMOTE_ADDR="1.1.1.1")) == "1.1.1.1"
