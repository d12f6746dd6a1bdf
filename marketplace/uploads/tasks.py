"""Celery entry points of uploads, imports and exports; what they do is in the rows.

A message carries only the kind and id of a job. It may arrive twice, late or never: the runner
claims the row first, and `requeue_lost_transfers` sends again what nobody works on.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any
from uuid import UUID

from celery import shared_task
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone
from kombu.exceptions import OperationalError

from marketplace.leases import BATCH, return_lost
from marketplace.uploads.models import Export, Import, Transfer

logger = logging.getLogger(__name__)

KINDS: dict[str, type[Transfer]] = {"import": Import, "export": Export}
RESEND_AFTER = timedelta(seconds=60)  # a queued job whose message must be taken for lost
SLACK_SECONDS = 60  # the runner ends a job itself; the worker only where that fails


@shared_task
def clean_up_quarantine() -> int:
    """Remove drafts that nobody finished; return how many."""
    from marketplace.uploads.services import remove_stale_uploads  # noqa: PLC0415 - sends tasks

    return remove_stale_uploads()


@shared_task(
    bind=True,
    soft_time_limit=settings.TRANSFER_SECONDS + SLACK_SECONDS,
    time_limit=settings.TRANSFER_SECONDS + 2 * SLACK_SECONDS,
)
def run_transfer(self: object, kind: str, job_id: str) -> None:
    """Do the import or export if it is still to be done."""
    from marketplace.uploads import runner  # noqa: PLC0415 - only workers load it

    worker = getattr(getattr(self, "request", None), "hostname", "") or ""
    try:
        runner.run(KINDS[kind], UUID(job_id), worker=worker)
    except SoftTimeLimitExceeded:
        # Between the runner's own handling and here there is nothing left to save.
        logger.warning("%s %s ended at its time limit", kind, job_id)


def send_transfer(job: Transfer) -> bool:
    """Ring the bell for a queued job; False where the queue cannot be reached: sent later."""
    rows: Any = type(job)._default_manager
    rows.filter(pk=job.pk).update(sent_at=timezone.now())
    try:
        run_transfer.delay(str(job._meta.model_name), str(job.pk))
    except (OperationalError, OSError) as error:
        logger.warning("%s waits, the queue cannot be reached: %s", job, error)
        rows.filter(pk=job.pk).update(sent_at=None)
        return False
    return True


@shared_task(expires=60)
def requeue_lost_transfers() -> int:
    """Return jobs whose worker is gone and send again those whose message was lost.

    A job that has lost its worker too often ends as failed. Returns how many were sent.
    """
    sent = 0
    for model in KINDS.values():
        rows: Any = model._default_manager
        return_lost(
            rows.all(),
            fix="Retry; the administrator finds the cause in the worker's log.",
            ended={"sealed_token": ""},
        )
        sent += _send_again(rows)
    return sent


def _send_again(rows: Any) -> int:
    silent = rows.queued().filter(Q(sent_at=None) | Q(sent_at__lt=Now() - RESEND_AFTER))
    return sum(send_transfer(job) for job in silent.order_by("created_at")[:BATCH])
