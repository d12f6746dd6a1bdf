"""Every read of the shelf that is worth a name; access is part of the read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import AnonymousUser
from django.db import models
from django.db.models import Q, Value
from django.db.models.functions import Lower

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

    def may_download(self, user: User | AnonymousUser) -> AdapterQuerySet:
        """What this user may fetch files of: visible ones, gated ones only where let in."""
        return self.visible_to(user).filter(_let_in(user, ""))

    def named(self, owner: str, name: str) -> AdapterQuerySet:
        """The one at this address, in whatever case it was typed."""
        address = Lower(Value(f"{owner}/{name}"))
        return self.alias(address=Lower("full_name")).filter(address=address)

    def formerly_named(self, owner: str, name: str) -> AdapterQuerySet:
        """The one that was at this address before it moved."""
        address = Lower(Value(f"{owner}/{name}"))
        return self.alias(address=Lower("aliases__full_name")).filter(address=address)

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

    def readable_files_by(self, user: User | AnonymousUser) -> RevisionQuerySet:
        """Those whose files this user may fetch or compose with."""
        return self.visible_to(user).filter(_let_in(user, "adapter__"))

    def of(self, owner: str, name: str) -> RevisionQuerySet:
        """Those of the adapter at this address."""
        address = Lower(Value(f"{owner}/{name}"))
        return self.alias(address=Lower("adapter__full_name")).filter(address=address)

    def at(self, label: str) -> Revision | None:
        """The one that `label` names: a branch or tag, v3, a full id; main is the newest there is.

        A tag of the owner's called v3 comes before the third version, as it does for hub clients.
        Call it on the revisions of one adapter.
        """
        if FULL_OID.match(label):
            return self.filter(oid=label).first()
        if label in {"main", "latest"}:
            return self.on_shelf().filter(number__isnull=False).order_by("-number").first()
        named = self.filter(refs__name=label).first()
        if named or not VERSION_LABEL.match(label):
            return named
        return self.filter(number=int(label[1:])).first()


def _let_in(user: User | AnonymousUser, prefix: str) -> Q:
    """Open adapters, one's own, and those one was let in to."""
    fine = Q(**{f"{prefix}gated": "open"})
    if user.is_authenticated:
        granted = user.access_requests.filter(state="granted").values("adapter_id")
        fine |= Q(**{f"{prefix}owner": user}) | Q(**{f"{prefix}pk__in": granted})
    return fine
