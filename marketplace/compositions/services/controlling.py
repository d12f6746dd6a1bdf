"""Cancel, retry and clone jobs, and forget the rows of finished ones."""

from __future__ import annotations

from django.db import transaction

from composer.examples import Example as Row
from marketplace.accounts.models import User
from marketplace.compositions.models import CompositionJob, Example
from marketplace.compositions.services.errors import CompositionError
from marketplace.compositions.services.starting import (
    OPTION_NAMES,
    CompositionRequest,
    start_composition,
)
from marketplace.compositions.tasks import send_waiting
from marketplace.live.services import publish

State = CompositionJob.State


def cancel_composition(job: CompositionJob) -> CompositionJob:
    """Cancel a queued job at once; ask the worker of a running one to stop. Twice is once."""
    with transaction.atomic():
        locked = CompositionJob.objects.select_for_update(no_key=True).get(pk=job.pk)
        if locked.move(frm=State.QUEUED, to=State.CANCELLED):
            publish(locked.channel, "state", {"state": State.CANCELLED})
            transaction.on_commit(lambda: send_waiting(locked.owner_id))
        elif locked.state == State.RUNNING and not locked.cancel_requested:
            CompositionJob.objects.filter(pk=locked.pk).update(cancel_requested=True)
            publish(locked.channel, "state", {"state": State.RUNNING})
    job.refresh_from_db()
    return job


def retry_composition(job: CompositionJob) -> CompositionJob:
    """Queue a failed or cancelled job again, with the same settings and what it had scored.

    Raises:
        CompositionError: the job is not over, it succeeded, or its rows are deleted.
    """
    if not job.examples.exists():
        raise CompositionError({"": ["The rows of this job are deleted, so it cannot run again."]})
    with transaction.atomic():
        moved = job.move(
            frm=frozenset({State.FAILED, State.CANCELLED}),
            to=State.QUEUED,
            attempts=0,
            cancel_requested=False,
            finished_at=None,
            sent_at=None,
            error="",
            error_code="",
            error_fix="",
        )
        if not moved:
            raise CompositionError({"": ["Only a failed or cancelled job can be retried."]})
        publish(job.channel, "state", {"state": State.QUEUED})
        transaction.on_commit(lambda: send_waiting(job.owner_id))
    return job


def clone_composition(
    job: CompositionJob, *, by: User, idempotency_key: str = ""
) -> CompositionJob:
    """Start a new job with the same adapters, rows and settings.

    Raises:
        CompositionError: with every problem, such as an adapter that is no longer available.
    """
    return start_composition(make_clone_request(job, by=by, idempotency_key=idempotency_key))


def make_clone_request(
    job: CompositionJob, *, by: User, idempotency_key: str = ""
) -> CompositionRequest:
    """Return the request that made a job; the stored inputs hold the instruction already."""
    rows = list(job.examples.all())
    return CompositionRequest(
        owner=by,
        revisions=[item.revision for item in job.ingredients.select_related("revision__adapter")],
        base_model=job.base_model,
        rows=[_row(row) for row in rows if row.split == Example.Split.FIT],
        held_out=[_row(row) for row in rows if row.split == Example.Split.HELD_OUT],
        title=job.title,
        hand_weights=job.hand_weights,
        idempotency_key=idempotency_key,
        cloned_from=job,
        options={name: getattr(job, name) for name in OPTION_NAMES},
    )


def forget_examples(job: CompositionJob) -> None:
    """Delete the rows of a finished job, in its report as well; figures and weights stay.

    Raises:
        CompositionError: the job still needs them.
    """
    if not job.is_finished:
        raise CompositionError({"": ["The job still needs its rows. Cancel it first."]})
    with transaction.atomic():
        job.examples.all().delete()
        if job.report:
            job.report = {**job.report, "answers": []}
            job.save(update_fields=["report"])


def _row(row: Example) -> Row:
    return Row(row.input, row.output)
