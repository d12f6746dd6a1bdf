"""Celery entry points of uploads."""

from __future__ import annotations

from celery import shared_task

from marketplace.uploads.services import remove_stale_uploads


@shared_task
def clean_up_quarantine() -> int:
    """Remove drafts that nobody finished; return how many."""
    return remove_stale_uploads()
