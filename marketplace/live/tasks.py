"""Celery entry points of the live app."""

from __future__ import annotations

from datetime import timedelta

from celery import shared_task
from django.utils import timezone

from marketplace.live.models import Event

KEPT = timedelta(days=1)


@shared_task
def forget_old_events() -> int:
    """Delete the events that no browser will ask for any more; return how many."""
    deleted, _ = Event.objects.filter(created_at__lt=timezone.now() - KEPT).delete()
    return deleted
