"""Every read of drafts and transfers that is worth a name; access is part of the read."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.models import Count, Sum
from django.db.models.functions import Coalesce

from marketplace.leases import LeasedQuerySet

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


class TransferQuerySet(LeasedQuerySet[Any]):
    """Reads of imports and exports."""

    def started_since(self, moment: datetime) -> TransferQuerySet:
        """Those that were asked for since then."""
        return self.filter(created_at__gt=moment)
