"""Every read of drafts and transfers that is worth a name; access is part of the read."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.models import Count, Q, Sum
from django.db.models.functions import Coalesce, Now

if TYPE_CHECKING:
    from marketplace.uploads.models import Upload  # noqa: F401


class UploadQuerySet(models.QuerySet["Upload"]):
    """Reads of drafts."""

    def owned_by(self, user: Any) -> UploadQuerySet:
        """The user's own: a draft does not exist for anyone else."""
        return self.filter(owner=user) if user.is_authenticated else self.none()

    def open(self) -> UploadQuerySet:
        """Those that are not published yet."""
        return self.exclude(state="published")

    def untouched_since(self, moment: datetime) -> UploadQuerySet:
        """Those that nobody has changed since; what `clean_up_quarantine` removes."""
        return self.filter(updated_at__lt=moment)

    def with_sizes(self) -> UploadQuerySet:
        """With `file_count` and `size`, for the list of drafts."""
        return self.annotate(file_count=Count("files"), size=Coalesce(Sum("files__received"), 0))

    def reserved_bytes(self) -> int:
        """How much of the owners' quota the files of these drafts hold."""
        return self.aggregate(total=Sum("files__reserved"))["total"] or 0


class TransferQuerySet(models.QuerySet[Any]):
    """Reads of imports and exports; a job exists for its owner alone."""

    def owned_by(self, user: Any) -> TransferQuerySet:
        """The user's own."""
        return self.filter(owner=user) if user.is_authenticated else self.none()

    def active(self) -> TransferQuerySet:
        """Queued or running."""
        return self.filter(state__in=("queued", "running"))

    def queued(self) -> TransferQuerySet:
        """Waiting for a worker."""
        return self.filter(state="queued")

    def with_lost_lease(self) -> TransferQuerySet:
        """Running on a worker that has been silent for a whole lease, by the database's clock."""
        return self.filter(state="running", lease_expires_at__lt=Now())

    def claimable(self) -> TransferQuerySet:
        """What a worker may take."""
        return self.filter(Q(state="queued") | Q(state="running", lease_expires_at__lt=Now()))

    def started_since(self, moment: datetime) -> TransferQuerySet:
        """Those that were asked for since then."""
        return self.filter(created_at__gt=moment)
