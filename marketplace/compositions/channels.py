"""Who may hear of a job on its live channel `job:<id>`: its owner alone."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from marketplace.compositions.models import CompositionJob

PREFIX = "job"


def may_hear(user: Any, key: str) -> bool:
    """Tell whether the user owns the job with this id."""
    try:
        job_id = UUID(key)
    except ValueError:
        return False
    return CompositionJob.objects.owned_by(user).filter(pk=job_id).exists()
