"""Leases of long jobs: who works on a row, for how long, and what becomes of it without a worker.

A worker claims a row, renews its lease while it works, and finds its fencing token outdated if it
was away too long; it can write nothing then. Rows have `state`, `fence`, `attempts`, `sent_at`,
`lease_expires_at`, `cancel_requested`, `channel` and `move`. The database's clock decides. What
the jobs do, and how they are claimed and renewed, is left to the apps.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any, Self, TypeVar
from uuid import UUID

from django.conf import settings
from django.db import Error, close_old_connections, connection, models, transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from marketplace.live.services import publish

logger = logging.getLogger(__name__)

QUEUED, RUNNING, FAILED, CANCELLED = "queued", "running", "failed", "cancelled"
BATCH = 100
Row = TypeVar("Row", bound=models.Model)


class LeaseLost(Exception):
    """Another worker has the job, or it has ended: this worker must stop and write nothing."""


class LeasedQuerySet(models.QuerySet[Row]):
    """Reads of jobs that workers hold by a lease; a job exists for its owner alone."""

    def owned_by(self, user: Any) -> Self:
        """The user's own; for anybody else a job does not exist."""
        return self.filter(owner=user) if user.is_authenticated else self.none()

    def active(self) -> Self:
        """Queued or running."""
        return self.filter(state__in=(QUEUED, RUNNING))

    def queued(self) -> Self:
        """Waiting for a worker."""
        return self.filter(state=QUEUED)

    def claimable(self) -> Self:
        """What a worker may take: queued, or running on a worker whose lease ran out.

        The database's clock decides, so a worker with a wrong clock takes nothing too early.
        """
        return self.filter(Q(state=QUEUED) | Q(state=RUNNING, lease_expires_at__lt=Now()))

    def with_lost_lease(self) -> Self:
        """Running on a worker that has been silent for a whole lease."""
        return self.filter(state=RUNNING, lease_expires_at__lt=Now())


class Lease:
    """A claimed row; use as a context manager, so that the lease is renewed meanwhile."""

    def __init__(self, model: type[models.Model], job_id: UUID, fence: int) -> None:
        self.job_id = job_id
        self.fence = fence
        self.cancel_requested = False
        self.is_lost = False
        self._rows: Any = model._default_manager
        self._done = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="lease", daemon=True)

    def __enter__(self) -> Self:
        self._heart.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._heart.join(timeout=10)

    def renew(self) -> None:
        """Make the lease a full one again, and look whether the user wants to stop."""
        raise NotImplementedError

    def end(self, state: str, **changes: Any) -> bool:
        """Move the job to another state if it is still ours; tell whether it was."""
        rows = self._rows.filter(pk=self.job_id, fence=self.fence)
        with transaction.atomic():
            job = rows.select_for_update(no_key=True).first()
            if job is None or not job.move(frm=RUNNING, to=state, **changes):
                return False
            publish(job.channel, "state", {"state": state})
        return True

    def give_back(self, **changes: Any) -> bool:
        """Return the job to the queue without charging the attempt: the worker is going away."""
        rows = self._rows.filter(pk=self.job_id, fence=self.fence, state=RUNNING)
        job = rows.first()
        return bool(
            job
            and rows.update(
                state=QUEUED,
                fence=self.fence + 1,
                attempts=max(0, job.attempts - 1),
                lease_expires_at=None,
                sent_at=None,
                **changes,
            )
        )

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


def return_lost(
    rows: LeasedQuerySet[Any], *, fix: str, ended: Mapping[str, object] | None = None
) -> None:
    """Take lost jobs from their workers; the fence makes it safe for several reapers at once.

    They go back to the queue, or end: as cancelled where that was asked, as failed after too many
    attempts. `fix` tells the owner of a failed one what to do; `ended` is written with every end.
    """
    lost = rows.with_lost_lease()
    for job in lost[:BATCH]:
        mine = lost.filter(pk=job.pk, fence=job.fence)
        changes: dict[str, Any] = {"fence": job.fence + 1, "lease_expires_at": None}
        if job.cancel_requested:
            state = CANCELLED
        elif job.attempts >= settings.JOB_MAX_ATTEMPTS:
            state = FAILED
            lost_times = f"The worker was lost {job.attempts} times while it did this job."
            changes |= {"error_code": "worker_lost", "error": lost_times, "error_fix": fix}
        else:
            state = QUEUED
        changes |= {"sent_at": None} if state == QUEUED else _end_changes(ended)
        if mine.update(state=state, **changes):
            publish(job.channel, "state", {"state": state})


def _end_changes(ended: Mapping[str, object] | None) -> dict[str, object]:
    return {"finished_at": timezone.now(), **(ended or {})}
