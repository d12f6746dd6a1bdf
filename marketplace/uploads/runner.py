"""Do imports and exports: the worker's side, with an HTTP client that the web process needs not.

Claims the row, does the work of `fetching` or `pushing` while the lease holds, and ends the job
with a result or a sentence for the user; what is a bug of ours also goes to the log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from uuid import UUID

from celery.exceptions import SoftTimeLimitExceeded, WorkerShutdown, WorkerTerminate
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import InterfaceError, OperationalError, connection

from marketplace.blobs.services import BlobError
from marketplace.leases import LeaseLost
from marketplace.uploads.errors import UploadError
from marketplace.uploads.fetching import do_import
from marketplace.uploads.holding import Hold, Stopped
from marketplace.uploads.hub_reader import HubFailure
from marketplace.uploads.models import Export, Import, Transfer
from marketplace.uploads.pushing import do_export
from marketplace.uploads.sealing import SealBroken
from marketplace.uploads.services.transfers import forget_draft

logger = logging.getLogger(__name__)

State = Transfer.State
_DO: dict[type[Transfer], Callable[[Any, Hold], None]] = {Import: do_import, Export: do_export}


def run(model: type[Transfer], job_id: UUID, *, worker: str = "") -> None:
    """Claim the job and do it; return at once where another worker has it or it is over."""
    hold = Hold.claim(model, job_id, worker=worker)
    if hold is None:
        logger.info("%s %s is not to be done: taken or over", model.__name__, job_id)
        return
    rows: Any = model._default_manager
    job = rows.select_related("owner").get(pk=job_id)
    try:
        with hold:
            _DO[model](job, hold)
    except LeaseLost:
        logger.warning("%s %s: the lease was lost, the work is dropped", job, job_id)
    except Stopped:
        if hold.end(State.CANCELLED):
            forget_draft(job)
    except (WorkerShutdown, WorkerTerminate, SystemExit):
        # The worker is told to go: the job goes back, what was fetched stays, no attempt is lost.
        hold.give_back()
        raise
    except (OperationalError, InterfaceError) as error:
        # The database is away. The lease runs out, and the reaper returns the job.
        logger.warning("%s: left for another attempt, no database: %s", job, error)
        connection.close()
    except Exception as error:  # every cause must end in a state and a sentence
        _fail(hold, _explain(error, job))


def _fail(hold: Hold, failure: dict[str, str]) -> None:
    try:
        hold.end(State.FAILED, **failure)
    except DatabaseError:
        # The lease runs out and the reaper returns the job, so nothing is lost.
        logger.exception("job %s: its failure could not be written", hold.job_id)


def _explain(error: Exception, job: Transfer) -> dict[str, str]:
    """Turn a cause into a code, a sentence and what to do; log what is not the user's doing."""
    if isinstance(error, HubFailure):
        return _told(error.code, str(error), error.fix)
    if isinstance(error, SealBroken):
        return _told("token", str(error))
    if isinstance(error, UploadError):
        return _told("refused", str(error))
    if isinstance(error, BlobError):
        return _told("storage", str(error))
    if isinstance(error, SoftTimeLimitExceeded):
        text = f"The job did not end within {settings.TRANSFER_SECONDS // 60} minutes."
        return _told("time_limit", text, "Retry: it goes on from where it was.")
    logger.error("%s %s failed", job, job.pk, exc_info=error)
    return _told(
        "internal",
        "Something went wrong on our side.",
        f"Retry; if it fails again, tell the administrator the job's id, {job.pk}.",
    )


def _told(code: str, text: str, fix: str = "") -> dict[str, str]:
    return {"error_code": code, "error": text, "error_fix": fix}
