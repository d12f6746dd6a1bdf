"""Hold an import or export: the lease, the fencing token, and writes that only the holder may do.

A worker that was away too long finds its token outdated and can write nothing. The database's clock
decides about leases. The same rules as for compositions, whose app may not be used here.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import Error, close_old_connections, connection, transaction
from django.db.models import F
from django.db.models.functions import Coalesce, Now

from marketplace.live.services import publish
from marketplace.uploads.models import Transfer

logger = logging.getLogger(__name__)

REPORT_SECONDS = 0.5


class LeaseLost(Exception):
    """Another worker has the job, or it has ended: this worker must stop and write nothing."""


class Stopped(Exception):
    """The user wants the job to stop."""


class Hold:
    """A claimed job; use as a context manager, so that the lease is renewed meanwhile."""

    def __init__(self, job: Transfer) -> None:
        self.job_id: UUID = job.pk
        self.fence = job.fence
        self.channel = job.channel
        self.cancel_requested = False
        self.is_lost = False
        self._rows: Any = type(job)._default_manager
        self._reported_at = 0.0
        self._done = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="lease", daemon=True)

    @classmethod
    def claim(cls, model: type[Transfer], job_id: UUID, *, worker: str) -> Hold | None:
        """Take the job, or return None where somebody has it or it is over."""
        rows: Any = model._default_manager
        with transaction.atomic():
            job = rows.claimable().select_for_update(skip_locked=True).filter(pk=job_id).first()
            if job is None:
                return None
            job.fence += 1
            rows.filter(pk=job_id).update(
                state=Transfer.State.RUNNING,
                fence=job.fence,
                attempts=F("attempts") + 1,
                worker=worker[:120],
                lease_expires_at=_full_lease(),
                started_at=Coalesce("started_at", Now()),
                phase="",
            )
            publish(job.channel, "state", {"state": Transfer.State.RUNNING})
        return cls(job)

    def __enter__(self) -> Hold:
        self._heart.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._heart.join(timeout=10)

    def renew(self, **changes: Any) -> None:
        """Make the lease a full one, and look whether the user wants to stop."""
        mine = self._rows.filter(pk=self.job_id, fence=self.fence, state=Transfer.State.RUNNING)
        if not mine.update(lease_expires_at=_full_lease(), **changes):
            self.is_lost = True
            return
        asked = mine.values_list("cancel_requested", flat=True).first()
        self.cancel_requested = bool(asked)

    def report(self, **changes: Any) -> None:
        """Write how far the job is and tell its page.

        Raises:
            LeaseLost: the job is not ours any more.
            Stopped: the user cancelled it.
        """
        self.renew(**changes)
        if self.is_lost:
            raise LeaseLost
        if self.cancel_requested:
            raise Stopped
        told = {name: value for name, value in changes.items() if name in _TOLD}
        publish(self.channel, "progress", told)
        self._reported_at = time.monotonic()

    def report_bytes(self, done: int) -> None:
        """The same for the number of bytes, at most twice a second."""
        if self.is_lost:
            raise LeaseLost
        if time.monotonic() - self._reported_at > REPORT_SECONDS:
            self.report(bytes_done=done)

    def end(self, state: str, **changes: Any) -> bool:
        """Move the job to a final state if it is still ours; tell whether it was."""
        with transaction.atomic():
            job = (
                self._rows.select_for_update(no_key=True)
                .filter(pk=self.job_id, fence=self.fence)
                .first()
            )
            if job is None or not job.move(frm=Transfer.State.RUNNING, to=state, **changes):
                return False
            publish(job.channel, "state", {"state": state})
        return True

    def give_back(self) -> None:
        """Return the job to the queue without charging the attempt: the worker is going away."""
        self._rows.filter(pk=self.job_id, fence=self.fence, state=Transfer.State.RUNNING).update(
            state=Transfer.State.QUEUED,
            fence=F("fence") + 1,
            attempts=F("attempts") - 1,
            lease_expires_at=None,
            sent_at=None,
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


_TOLD = frozenset({"phase", "bytes_done", "bytes_total"})


def _full_lease() -> Any:
    return Now() + timedelta(seconds=settings.JOB_LEASE_SECONDS)
