"""Hold a composition: how it is claimed and renewed, and writes that only the holder may do.

What every leased job has in common is in `marketplace.leases`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction

from marketplace.compositions.models import CompositionJob
from marketplace.leases import Lease, LeaseLost
from marketplace.live.services import publish

_CLAIM = """
    UPDATE compositions_compositionjob
       SET state = 'running', fence = fence + 1, attempts = attempts + 1, worker = %s,
           lease_expires_at = now() + make_interval(secs => %s),
           started_at = coalesce(started_at, now()), phase = '', phase_done = 0, phase_total = NULL
     WHERE id = %s
       AND (state = 'queued' OR (state = 'running' AND lease_expires_at < now()))
 RETURNING fence
"""
_RENEW = """
    UPDATE compositions_compositionjob
       SET lease_expires_at = now() + make_interval(secs => %s)
     WHERE id = %s AND state = 'running' AND fence = %s
 RETURNING cancel_requested
"""


class Hold(Lease):
    """A claimed job; use as a context manager, so that the lease is renewed meanwhile."""

    def __init__(self, job_id: UUID, fence: int) -> None:
        super().__init__(CompositionJob, job_id, fence)

    @classmethod
    def claim(cls, job_id: UUID, *, worker: str) -> Hold | None:
        """Take the job, or return None where somebody has it or it is over."""
        with connection.cursor() as cursor:
            cursor.execute(_CLAIM, [worker[:120], settings.JOB_LEASE_SECONDS, job_id])
            row = cursor.fetchone()
        return cls(job_id, row[0]) if row else None

    def __enter__(self) -> Self:
        self.renew()
        return super().__enter__()

    def renew(self) -> None:
        """Make the lease a full one again, and look whether the user wants to stop."""
        with connection.cursor() as cursor:
            cursor.execute(_RENEW, [settings.JOB_LEASE_SECONDS, self.job_id, self.fence])
            row = cursor.fetchone()
        self.is_lost = row is None
        self.cancel_requested = bool(row and row[0])

    @contextmanager
    def writing(self) -> Iterator[CompositionJob]:
        """Give the locked row for a transaction of writes; raise LeaseLost where it is not ours."""
        with transaction.atomic():
            job = (
                CompositionJob.objects.select_for_update(no_key=True)
                .filter(pk=self.job_id, state=CompositionJob.State.RUNNING, fence=self.fence)
                .first()
            )
            if job is None:
                self.is_lost = True
                raise LeaseLost
            yield job

    def say(self, kind: str, data: Mapping[str, Any]) -> None:
        """Tell the job's page something."""
        publish(f"job:{self.job_id}", kind, data)
