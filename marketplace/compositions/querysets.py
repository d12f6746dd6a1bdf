"""Every read of composition jobs that is worth a name; a job exists for its owner alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

if TYPE_CHECKING:
    from marketplace.compositions.models import CompositionJob  # noqa: F401


class JobQuerySet(models.QuerySet["CompositionJob"]):
    """Reads of jobs."""

    def owned_by(self, user: Any) -> JobQuerySet:
        """The user's own; for anybody else a job does not exist."""
        return self.filter(owner=user) if user.is_authenticated else self.none()

    def active(self) -> JobQuerySet:
        """Queued or running."""
        return self.filter(state__in=("queued", "running"))

    def queued(self) -> JobQuerySet:
        """Waiting for a worker."""
        return self.filter(state="queued")

    def claimable(self) -> JobQuerySet:
        """What a worker may take: queued, or running on a worker whose lease ran out.

        The database's clock decides, so a worker with a wrong clock takes nothing too early.
        """
        return self.filter(Q(state="queued") | Q(state="running", lease_expires_at__lt=Now()))

    def with_lost_lease(self) -> JobQuerySet:
        """Running on a worker that has been silent for a whole lease."""
        return self.filter(state="running", lease_expires_at__lt=Now())
