"""Hold a job: the lease, the fencing token, and writes that only the holder's token allows.

A worker that was away too long (stopped, cut off) finds its token outdated and can write nothing.
The database's clock decides about leases, so clocks of workers do not matter.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import Error, close_old_connections, connection, transaction

from marketplace.compositions.models import CompositionJob
from marketplace.live.services import publish

logger = logging.getLogger(__name__)

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


class LeaseLost(Exception):
    """Another worker has the job, or it has ended: this worker must stop and write nothing."""


class Hold:
    """A claimed job; use as a context manager, so that the lease is renewed meanwhile."""

    def __init__(self, job_id: UUID, fence: int) -> None:
        self.job_id = job_id
        self.fence = fence
        self.cancel_requested = False
        self.is_lost = False
        self._done = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="lease", daemon=True)

    @classmethod
    def claim(cls, job_id: UUID, *, worker: str) -> Hold | None:
        """Take the job, or return None where somebody has it or it is over."""
        with connection.cursor() as cursor:
            cursor.execute(_CLAIM, [worker[:120], settings.JOB_LEASE_SECONDS, job_id])
            row = cursor.fetchone()
        return cls(job_id, row[0]) if row else None

    def __enter__(self) -> Hold:
        self.renew()
        self._heart.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._heart.join(timeout=10)

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

    def end(self, state: str, **changes: Any) -> bool:
        """Move the job to another state if it is still ours; tell whether it was."""
        rows = CompositionJob.objects.filter(pk=self.job_id, fence=self.fence)
        with transaction.atomic():
            job = rows.select_for_update(no_key=True).first()
            if job is None or not job.move(frm=CompositionJob.State.RUNNING, to=state, **changes):
                return False
            publish(job.channel, "state", {"state": state})
        return True

    def give_back(self, **changes: Any) -> bool:
        """Return the job to the queue without charging the attempt: the worker is going away."""
        rows = CompositionJob.objects.filter(
            pk=self.job_id, fence=self.fence, state=CompositionJob.State.RUNNING
        )
        job = rows.first()
        return bool(
            job
            and rows.update(
                state=CompositionJob.State.QUEUED,
                fence=self.fence + 1,
                attempts=max(0, job.attempts - 1),
                lease_expires_at=None,
                sent_at=None,
                **changes,
            )
        )

    def say(self, kind: str, data: Mapping[str, Any]) -> None:
        """Tell the job's page something."""
        publish(f"job:{self.job_id}", kind, data)

    def _beat(self) -> None:
        """Renew until the work is over; a database that is away is tried again at the next beat."""
        try:
            while not self._done.wait(settings.JOB_HEARTBEAT_SECONDS) and not self.is_lost:
                try:
                    close_old_connections()
                    self.renew()
                except Error as error:
                    logger.warning("job %s: the lease was not renewed: %s", self.job_id, error)
        finally:
            connection.close()
