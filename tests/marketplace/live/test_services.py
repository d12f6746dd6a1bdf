from __future__ import annotations

import threading

import psycopg
import pytest
from django.conf import settings as site_settings
from django.db import connection, transaction

from marketplace.live.listening import _arguments
from marketplace.live.models import Event
from marketplace.live.services import POSTGRES_CHANNEL, publish
from marketplace.live.views import read_events


@pytest.mark.django_db
def test_it_works():
    event = publish("room:1", "state", {"state": "running"})
    assert read_events("room:1", after=0) == [
        {"id": event.pk, "kind": "state", "data": {"state": "running"}}
    ]
    assert str(event) == f"room:1 state {event.pk}"
    assert publish("room:1", "done").data == {}


@pytest.mark.django_db
def test_channels_are_apart_and_ids_ascend():
    first, second = publish("room:1", "a"), publish("room:1", "b")
    publish("room:2", "c")
    assert [row["kind"] for row in read_events("room:1", after=0)] == ["a", "b"]
    assert [row["kind"] for row in read_events("room:1", after=first.pk)] == ["b"]
    assert read_events("room:1", after=second.pk) == []


@pytest.mark.django_db(transaction=True)
def test_listeners_are_woken_when_the_transaction_commits_and_only_then():
    with psycopg.connect(**_arguments(), autocommit=True) as listening:
        listening.execute(f"LISTEN {POSTGRES_CHANNEL}")
        with transaction.atomic():
            publish("room:1", "state", {"secret": "not in the notification"})
            assert list(listening.notifies(timeout=0.1)) == []
        woken = list(listening.notifies(timeout=5, stop_after=1))
        assert [notification.payload for notification in woken] == ["room:1"]
        transaction.set_autocommit(False)
        publish("room:2", "state")
        transaction.rollback()
        transaction.set_autocommit(True)
        assert list(listening.notifies(timeout=0.1)) == []
    assert Event.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_events_of_a_channel_become_visible_in_the_order_of_their_ids():
    """A reader that has seen an event never misses an earlier one that was committed later."""
    first_is_written, second_may_end = threading.Event(), threading.Event()
    ids: list[int] = []

    def slow() -> None:
        with transaction.atomic():
            ids.append(publish("room:1", "slow").pk)
            first_is_written.set()
            second_may_end.wait(5)
        connection.close()

    def quick() -> None:
        ids.append(publish("room:1", "quick").pk)
        connection.close()

    one, two = threading.Thread(target=slow), threading.Thread(target=quick)
    one.start()
    assert first_is_written.wait(5)
    two.start()
    two.join(0.3)
    assert two.is_alive()  # it waits for the first to commit
    publish("room:2", "elsewhere")  # and nobody else waits
    assert read_events("room:1", after=0) == []
    second_may_end.set()
    one.join()
    two.join()
    assert [row["id"] for row in read_events("room:1", after=0)] == ids == sorted(ids)


def test_the_listening_connection_takes_what_the_address_says(settings):
    settings.LISTEN_DATABASE = {
        **site_settings.LISTEN_DATABASE,
        "NAME": "site", "USER": "u", "PASSWORD": "", "HOST": "h", "PORT": "",
        "OPTIONS": {"sslmode": "require"},
    }  # fmt: skip
    assert _arguments() == {
        "application_name": "marketplace-live",
        "dbname": "site",
        "host": "h",
        "sslmode": "require",
        "user": "u",
    }
