"""Every read of the shelf that is worth a name; access is part of the read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import AnonymousUser
from django.db import models
from django.db.models import Q

if TYPE_CHECKING:
    from marketplace.accounts.models import User
    from marketplace.catalogue.models import Adapter, BaseModel, Revision  # noqa: F401


class BaseModelQuerySet(models.QuerySet["BaseModel"]):
    """Reads of base models."""

    def ready(self) -> BaseModelQuerySet:
        """Those whose module table is computed."""
        return self.filter(state="ready")

    def named(self, name: str) -> BaseModel | None:
        """The base model that an adapter_config.json calls by this name, or None."""
        return self.filter(Q(name__iexact=name) | Q(aliases__contains=[name])).first()


class AdapterQuerySet(models.QuerySet["Adapter"]):
    """Reads of adapters."""

    def visible_to(self, user: User | AnonymousUser) -> AdapterQuerySet:
        """What this user may know of: public ones on the shelf, and everything of their own."""
        on_shelf = Q(visibility="public", latest__isnull=False, owner__is_active=True)
        mine = Q(owner=user) if user.is_authenticated else Q()
        return self.filter(on_shelf | mine if mine else on_shelf, deleted_at__isnull=True)

    def owned_by(self, user: Any) -> AdapterQuerySet:
        """The user's own."""
        return self.filter(owner=user, deleted_at__isnull=True)


class RevisionQuerySet(models.QuerySet["Revision"]):
    """Reads of revisions."""

    def accepted(self) -> RevisionQuerySet:
        """Those that passed validation."""
        return self.filter(state="accepted")

    def on_shelf(self) -> RevisionQuerySet:
        """Accepted and not yanked: what pickers, search and `latest` know."""
        return self.accepted().filter(yanked_at__isnull=True)

    def visible_to(self, user: User | AnonymousUser) -> RevisionQuerySet:
        """Accepted ones of public adapters, and every one of the user's own."""
        public = Q(state="accepted", adapter__visibility="public", adapter__owner__is_active=True)
        mine = Q(adapter__owner=user) if user.is_authenticated else Q()
        return self.filter(public | mine if mine else public, adapter__deleted_at__isnull=True)
