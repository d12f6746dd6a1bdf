"""What the site asks of its database connections."""

from __future__ import annotations

import os
import time

import psycopg
import pytest
from django.db import DatabaseError, connection, transaction

PATIENCE_SECONDS = 60  # far more than it ever takes


@pytest.mark.django_db
def test_it_works():
    assert (ask("SHOW statement_timeout"), ask("SHOW idle_in_transaction_session_timeout")) == (
        "10s",
        "30s",
    )


@pytest.mark.django_db(transaction=True)
def test_who_stands_still_in_a_transaction_loses_it_and_its_locks():
    with pytest.raises(DatabaseError):
        stand_still()
    connection.close()
    assert ask("SELECT pg_try_advisory_xact_lock(77)") is True


def stand_still() -> None:
    with transaction.atomic():
        ask("SELECT pg_advisory_xact_lock(77)")
        ask("SELECT set_config('idle_in_transaction_session_timeout', '50', true)")
        wait_until_gone(ask("SELECT pg_backend_pid()"))
        ask("SELECT 1")


def wait_until_gone(pid: object) -> None:
    """Ask on a second connection whether the first is still served."""
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as other:
        give_up = time.monotonic() + PATIENCE_SECONDS
        while other.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone():
            assert time.monotonic() < give_up, "the idle transaction was not ended"
            time.sleep(0.02)


def ask(query: str) -> object:
    with connection.cursor() as cursor:
        cursor.execute(query)
        row = cursor.fetchone()
        assert row is not None
        return row[0]
