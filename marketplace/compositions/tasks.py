"""Celery entry points of compositions; what they do, and whether they have to, is in the rows.

A message carries only a job's id. It may arrive twice, late or never: `runner.run` claims the row
first, and `requeue_lost_jobs` sends again what nobody works on. At most two jobs of a user are with
the queue at a time, so that nobody waits behind all jobs of somebody else.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from uuid import UUID

from celery import shared_task
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.db import connection, transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone
from kombu.exceptions import OperationalError

from marketplace.accounts.models import User
from marketplace.compositions.models import CompositionJob, Example, LogLine
from marketplace.leases import BATCH, return_lost

logger = logging.getLogger(__name__)

RESEND_AFTER = timedelta(seconds=60)  # a queued job whose message must be taken for lost
ROWS_KEPT = timedelta(days=30)
_LOCK = 7203004021  # the advisory lock of the reaper: one of them at a time in a deployment


@shared_task(
    bind=True,
    soft_time_limit=settings.JOB_SOFT_LIMIT_SECONDS,
    time_limit=settings.JOB_HARD_LIMIT_SECONDS,
)
def run_composition(self: object, job_id: str) -> None:
    """Do the job if it is still to be done, then let the next one of its owner in."""
    from marketplace.compositions import runner

    try:
        runner.run(UUID(job_id), worker=getattr(getattr(self, "request", None), "hostname", ""))
    except SoftTimeLimitExceeded:
        # Between the runner's own handling and here there is nothing left to save.
        logger.warning("job %s ended at its time limit", job_id)
    owner_id = CompositionJob.objects.filter(pk=job_id).values_list("owner_id", flat=True).first()
    if owner_id is not None:
        send_waiting(owner_id)


def send_waiting(owner_id: int) -> int:
    """Send the user's oldest waiting jobs, as many as may be with the queue; return how many."""
    with transaction.atomic():
        # The owner's row is the lock that makes the count exact.
        User.objects.select_for_update(no_key=True).filter(pk=owner_id).first()
        jobs = CompositionJob.objects.filter(owner_id=owner_id)
        sent = jobs.active().exclude(state=CompositionJob.State.QUEUED, sent_at=None).count()
        free = max(0, settings.MAX_RUNNING_JOBS_PER_USER - sent)
        waiting = jobs.queued().filter(sent_at=None).order_by("created_at", "number")[:free]
        ids = list(waiting.values_list("pk", flat=True))
        jobs.filter(pk__in=ids).update(sent_at=timezone.now())
    return sum(send_job(job_id) for job_id in ids)


def send_job(job_id: UUID) -> bool:
    """Ring the bell for a queued job; False where the queue cannot be reached: sent later."""
    try:
        run_composition.delay(str(job_id))
    except (OperationalError, OSError) as error:
        logger.warning("job %s waits, the queue cannot be reached: %s", job_id, error)
        CompositionJob.objects.queued().filter(pk=job_id).update(sent_at=None)
        return False
    return True


@shared_task(expires=60)
def requeue_lost_jobs() -> int:
    """Send queued jobs whose message was lost, and return those whose worker is gone.

    A job that has lost its worker too often ends as failed. One reaper works at a time. Returns how
    many jobs were sent.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK])
        (locked,) = cursor.fetchone() or (False,)
    if not locked:
        return 0
    try:
        return_lost(
            CompositionJob.objects.all(),
            fix="Retry with fewer candidates or rows; the administrator finds the cause "
            "in the worker's log. The best weights so far are kept.",
        )
        return _send_again() + sum(send_waiting(owner_id) for owner_id in _waiting_owners())
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])


@shared_task
def forget_old_rows() -> int:
    """Delete rows and log of jobs that ended 30 days ago; weights and figures stay."""
    old = CompositionJob.objects.filter(
        state__in=CompositionJob.TERMINAL, finished_at__lt=timezone.now() - ROWS_KEPT
    )
    LogLine.objects.filter(job__in=old).delete()
    deleted, _ = Example.objects.filter(job__in=old).delete()
    for job in old.filter(report__answers__0__isnull=False)[:BATCH]:
        job.report = {**(job.report or {}), "answers": []}
        job.save(update_fields=["report"])
    return deleted


def _send_again() -> int:
    """Send jobs whose message was sent long ago and led to nothing."""
    silent = CompositionJob.objects.queued().filter(sent_at__lt=Now() - RESEND_AFTER)
    ids = list(silent.order_by("created_at").values_list("pk", flat=True)[:BATCH])
    CompositionJob.objects.queued().filter(pk__in=ids).update(sent_at=timezone.now())
    return sum(send_job(job_id) for job_id in ids)


def _waiting_owners() -> list[int]:
    waiting = CompositionJob.objects.queued().filter(Q(sent_at=None))
    return list(waiting.order_by().values_list("owner_id", flat=True).distinct()[:BATCH])
