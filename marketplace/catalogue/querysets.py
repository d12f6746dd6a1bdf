"""Every read of the shelf that is worth a name; access is part of the read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import AnonymousUser
from django.db import models
from django.db.models import Q

VERSION_LABEL = re.compile(r"v[1-9][0-9]{0,8}\Z")
FULL_OID = re.compile(r"[0-9a-f]{40}\Z")

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

    def named(self, owner: str, name: str) -> AdapterQuerySet:
        """The one at this address, in whatever case it was typed."""
        return self.filter(owner__username__iexact=owner, name__iexact=name)

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

    def of(self, owner: str, name: str) -> RevisionQuerySet:
        """Those of the adapter at this address."""
        return self.filter(adapter__owner__username__iexact=owner, adapter__name__iexact=name)

    def at(self, label: str) -> Revision | None:
        """The one that `label` names: v3, a full id, a branch or tag; main is the newest there is.

        Call it on the revisions of one adapter.
        """
        if VERSION_LABEL.match(label):
            return self.filter(number=int(label[1:])).first()
        if FULL_OID.match(label):
            return self.filter(oid=label).first()
        if label in {"main", "latest"}:
            return self.on_shelf().filter(number__isnull=False).order_by("-number").first()
        return self.filter(refs__name=label).first()
