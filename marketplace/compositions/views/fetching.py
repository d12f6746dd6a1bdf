"""How a page gets its job: for anybody but the owner it does not exist."""

from __future__ import annotations

from uuid import UUID

from django.http import Http404, HttpRequest
from rest_framework.request import Request

from marketplace.compositions.models import CompositionJob

MISSING = "There is no such job."


def get_job(request: HttpRequest | Request, pk: UUID) -> CompositionJob:
    """Return the visitor's own job.

    Raises:
        Http404: it is missing or somebody else's.
    """
    jobs = CompositionJob.objects.owned_by(request.user)
    job = jobs.filter(pk=pk).select_related("base_model", "published__adapter__owner").first()
    if job is None:
        raise Http404(MISSING)
    return job
