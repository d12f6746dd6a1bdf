"""What imports and exports have in common: limits, sending, stopping, trying again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, TypeVar

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from marketplace.accounts.models import User
from marketplace.live.services import publish
from marketplace.uploads.errors import Conflict, UploadError
from marketplace.uploads.models import Export, Import, Transfer, Upload
from marketplace.uploads.sealing import seal
from marketplace.uploads.services.drafts import discard_upload
from marketplace.uploads.tasks import send_transfer

State = Transfer.State
MAX_ACTIVE = 4
MAX_TOKEN = 500
AnyTransfer = TypeVar("AnyTransfer", Import, Export)


class TooMany(UploadError):
    """The owner has started too many transfers."""

    status = 429


def check_limits(owner: User) -> None:
    """Raise TooMany where the owner has to wait; the caller holds the owner's row locked."""
    since = timezone.now() - timedelta(hours=1)
    started = active = 0
    for model in (Import, Export):
        mine = model.objects.owned_by(owner)
        started += mine.started_since(since).count()
        active += mine.active().count()
    if active >= MAX_ACTIVE:
        raise TooMany(f"{active} imports and exports of yours are not over yet. Wait for one.")
    if started >= settings.MAX_TRANSFERS_PER_HOUR:
        raise TooMany(f"You started {started} imports and exports in an hour. Try again later.")


def check_token(token: str) -> str:
    """Return a token that can be sent in a header.

    Raises:
        UploadError: it cannot.
    """
    token = token.strip()
    if len(token) > MAX_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise UploadError(
            f"A token has no spaces and at most {MAX_TOKEN} plain characters. Copy it once more.",
            field="token",
        )
    return token


def send_soon(job: Transfer) -> None:
    """Ring the bell for the job once the transaction has ended."""
    transaction.on_commit(lambda: send_transfer(job))


def forget_draft(job: Transfer) -> None:
    """Delete the draft of an import that needs it no more."""
    upload = Upload.objects.open().filter(imported_by=job.pk).first()
    if upload is not None:
        discard_upload(upload)


def cancel_transfer(job: AnyTransfer) -> AnyTransfer:
    """Cancel a queued job at once; ask the worker of a running one to stop. Twice is once."""
    rows: Any = type(job)._default_manager
    with transaction.atomic():
        locked = rows.select_for_update(no_key=True).get(pk=job.pk)
        if locked.move(frm=State.QUEUED, to=State.CANCELLED):
            publish(locked.channel, "state", {"state": State.CANCELLED})
            forget_draft(locked)
        elif locked.state == State.RUNNING and not locked.cancel_requested:
            rows.filter(pk=job.pk).update(cancel_requested=True)
            publish(locked.channel, "state", {"state": State.RUNNING})
    job.refresh_from_db()
    return job


def retry_transfer(job: AnyTransfer, *, token: str = "") -> AnyTransfer:
    """Queue a failed or cancelled job again; what was fetched before is kept.

    The token has to be given anew: it was forgotten when the job ended.

    Raises:
        Conflict: the job is not over, or it succeeded.
        UploadError: the token or the owner's limits do not allow it.
    """
    sealed = seal(check_token(token), job.pk)
    with transaction.atomic():
        owner = User.objects.select_for_update(no_key=True).get(pk=job.owner_id)
        check_limits(owner)
        moved = job.move(
            frm=frozenset({State.FAILED, State.CANCELLED}),
            to=State.QUEUED,
            sealed_token=sealed,
            attempts=0,
            cancel_requested=False,
            finished_at=None,
            sent_at=None,
            error="",
            error_code="",
            error_fix="",
        )
        if not moved:
            raise Conflict("Only a failed or cancelled import or export can be retried.")
        publish(job.channel, "state", {"state": State.QUEUED})
        send_soon(job)
    return job
