"""Every read of composition jobs that is worth a name; a job exists for its owner alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marketplace.leases import LeasedQuerySet

if TYPE_CHECKING:
    from marketplace.compositions.models import CompositionJob  # noqa: F401


class JobQuerySet(LeasedQuerySet["CompositionJob"]):
    """Reads of jobs; all of them are those of every leased job."""
