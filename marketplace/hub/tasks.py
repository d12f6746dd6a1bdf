"""What the beat does for the wire: forget what was sent ahead of a commit that never came."""

from __future__ import annotations

from datetime import timedelta

from celery import shared_task
from django.utils import timezone

from marketplace.hub.models import SentObject
from marketplace.hub.services.folders import KEPT_SECONDS, hub_folder, remove_old
from marketplace.hub.services.xet import renew_old_spaces


@shared_task
def clean_up_pushes() -> int:
    """Forget what is older than a day; content that no revision took is collected with the blobs.

    Returns how many things went.
    """
    old = timezone.now() - timedelta(seconds=KEPT_SECONDS)
    forgotten, _ = SentObject.objects.filter(created_at__lt=old).delete()
    left = sum(remove_old(hub_folder(name)) for name in ("work", "parts"))
    return forgotten + left + renew_old_spaces()
