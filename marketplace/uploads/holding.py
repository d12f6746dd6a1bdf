"""Hold an import or export: how it is claimed and renewed, and how it tells of its progress.

What every leased job has in common is in `marketplace.leases`.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Coalesce, Now

from marketplace.leases import Lease, LeaseLost
from marketplace.live.services import publish
from marketplace.uploads.models import Transfer

REPORT_SECONDS = 0.5


class Stopped(Exception):
    """The user wants the job to stop."""


class Hold(Lease):
    """A claimed job; use as a context manager, so that the lease is renewed meanwhile."""

    def __init__(self, job: Transfer) -> None:
        super().__init__(type(job), job.pk, job.fence)
        self.channel = job.channel
        self._reported_at = 0.0

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


_TOLD = frozenset({"phase", "bytes_done", "bytes_total"})


def _full_lease() -> Any:
    return Now() + timedelta(seconds=settings.JOB_LEASE_SECONDS)
