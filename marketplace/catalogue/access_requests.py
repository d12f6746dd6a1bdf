"""Reads of who asked for which gated adapter: the owner's side and the asker's side."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.db.models import QuerySet

from marketplace.accounts.models import User
from marketplace.catalogue.models import AccessRequest, Adapter


def find_request(adapter: Adapter, user: User | AnonymousUser) -> AccessRequest | None:
    """Return what the user asked of this adapter, if they did."""
    if not user.is_authenticated:
        return None
    return AccessRequest.objects.filter(adapter=adapter, user=user).first()


def list_to_owner(user: Any) -> QuerySet[AccessRequest]:
    """Requests for the user's own gated adapters, the newest first."""
    rows = AccessRequest.objects.filter(adapter__owner=user, adapter__deleted_at=None)
    return rows.exclude(adapter__gated=Adapter.Gate.OPEN).select_related("adapter", "user")


def list_by_asker(user: Any) -> QuerySet[AccessRequest]:
    """What the user asked for themselves, as far as they may still know of it."""
    visible = Adapter.objects.visible_to(user)
    return AccessRequest.objects.filter(user=user, adapter__in=visible).select_related("adapter")


def count_waiting(user: Any) -> int:
    """How many requests wait for the user's decision."""
    return list_to_owner(user).filter(state=AccessRequest.State.PENDING).count()
