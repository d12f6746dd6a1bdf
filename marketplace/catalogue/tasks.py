"""What workers do for the shelf: read base models, count, and clear away what nothing needs."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from celery import shared_task
from django.core.files.storage import default_storage
from django.db import IntegrityError, transaction
from django.utils import timezone

from marketplace.blobs.models import Blob
from marketplace.catalogue.models import BaseModel, RevisionFile
from marketplace.catalogue.services import counting

logger = logging.getLogger(__name__)

ORPHAN_GRACE = timedelta(hours=24)
DELETED_GRACE = timedelta(days=30)


@shared_task
def compute_module_table(base_model_id: int) -> None:
    """Read a base model's layers; safe to run twice, and nothing to do for a deleted one."""
    from marketplace.catalogue.runner import fill_module_table  # noqa: PLC0415 - imports torch

    base_model = BaseModel.objects.filter(pk=base_model_id).first()
    if base_model is not None:
        fill_module_table(base_model)


@shared_task
def add_up_downloads() -> int:
    """Count the downloads of the last seconds; returns how many batches they were."""
    return counting.add_up_downloads()


@shared_task
def collect_orphan_blobs() -> int:
    """Free the files of adapters deleted 30 days ago, and content that nothing has used for a day.

    Returns how many contents went.
    """
    now = timezone.now()
    RevisionFile.objects.filter(revision__adapter__deleted_at__lt=now - DELETED_GRACE).delete()
    old = now - ORPHAN_GRACE
    unused = Blob.objects.filter(uses__isnull=True, created_at__lt=old)
    collected = sum(_collect(sha256, before=old) for sha256 in unused.values_list("pk", flat=True))
    if collected:
        logger.info("collected %d unused contents", collected)
    return collected


def _collect(sha256: str, *, before: datetime) -> bool:
    """Remove one content, object first, while its row is locked.

    Whoever stores the same content again touches the row first (`blobs.services`): they wait for
    this transaction and then find neither, or this finds the row too young and leaves it.
    """
    try:
        with transaction.atomic():
            blob = (
                Blob.objects.select_for_update()
                .filter(pk=sha256, created_at__lt=before)
                .exclude(pk__in=RevisionFile.objects.filter(blob_id=sha256).values("blob_id"))
                .first()
            )
            if blob is None:
                return False
            name = blob.storage_name  # the key is gone after delete()
            blob.delete()
            default_storage.delete(name)
            return True
    except IntegrityError:
        return False  # a revision took it in the meantime
