"""Adapters as repositories: make an empty one, move it to another name, gate it; branches and tags.

Deleting and visibility are in `shelving`; commits in `pushing`.
"""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from marketplace.accounts.models import User
from marketplace.accounts.names import validate_adapter_name
from marketplace.catalogue.models import AccessRequest, Adapter, AdapterAlias, Ref, Revision
from marketplace.catalogue.services.errors import CatalogueError, Problems, PublishError
from marketplace.catalogue.services.publishing import (
    MAIN,
    check_name_is_fresh,
    name_of_deleted,
)
from marketplace.catalogue.services.shelving import lock_own
from marketplace.catalogue.services.trees import make_oid

MAX_REFS = 200
MAX_ADAPTERS = 1000


class NameTaken(CatalogueError):
    """The owner has an adapter of this name, which is `adapter`."""

    def __init__(self, adapter: Adapter) -> None:
        super().__init__({"name": [f"{adapter.full_name} exists already."]})
        self.adapter = adapter


class RefTaken(CatalogueError):
    """There is a branch or tag of this name."""

    def __init__(self, ref: Ref) -> None:
        super().__init__({"name": [f"There is a {ref.get_kind_display()} “{ref.name}” already."]})


def create_adapter(owner: User, name: str, *, visibility: str) -> Adapter:
    """Make an empty adapter, whose main has one empty draft: nobody but its owner sees it.

    Raises:
        NameTaken: the owner has one of this name.
        PublishError: the name cannot be used, or there are too many adapters.
    """
    with transaction.atomic():
        User.objects.select_for_update(no_key=True).get(pk=owner.pk)
        existing = Adapter.objects.filter(owner=owner, name__iexact=name).first()
        if existing is not None and not existing.deleted_at:
            raise NameTaken(existing)
        problems = Problems()
        _check_new_name(owner, name, existing, problems)
        if Adapter.objects.owned_by(owner).count() >= MAX_ADAPTERS:
            problems.add("name", f"You have {MAX_ADAPTERS} adapters. Delete one first.")
        problems.raise_if_any()
        adapter = Adapter.objects.create(owner=owner, name=name, visibility=visibility)
        first = Revision.objects.create(
            adapter=adapter,
            oid=make_oid({}, None),
            author=owner,
            title="Initial commit",
            origin=Revision.Origin.HUB,
        )
        Ref.objects.create(adapter=adapter, name=MAIN, revision=first)
    return adapter


def move_adapter(adapter: Adapter, name: str, *, by: User) -> Adapter:
    """Give an adapter another name; the old one leads to it from then on.

    Raises:
        NameTaken: the owner has one of this name.
        PublishError: the name cannot be used.
        CatalogueError: `by` is not the owner.
    """
    with transaction.atomic():
        User.objects.select_for_update(no_key=True).get(pk=adapter.owner_id)
        locked = lock_own(adapter, by)
        others = Adapter.objects.filter(owner=by, name__iexact=name).exclude(pk=locked.pk)
        existing = others.first()
        if existing is not None and not existing.deleted_at:
            raise NameTaken(existing)
        # Back to a name of its own is no theft.
        locked.aliases.filter(full_name__iexact=f"{by.username}/{name}").delete()
        problems = Problems()
        _check_new_name(by, name, existing, problems)
        problems.raise_if_any()
        before = locked.full_name
        locked.name = name
        locked.save()
        if before.lower() != locked.full_name.lower():
            AdapterAlias.objects.create(adapter=locked, full_name=before)
    return locked


def set_gate(adapter: Adapter, gate: str, *, by: User) -> None:
    """Say who may download what everybody can see; an automatic gate lets in who waits.

    Raises:
        CatalogueError: `by` is not the owner.
    """
    with transaction.atomic():
        locked = lock_own(adapter, by)
        locked.gated = gate
        locked.save(update_fields=["gated", "updated_at"])
        if gate == Adapter.Gate.AUTO:
            waiting = locked.access_requests.filter(state=AccessRequest.State.PENDING)
            waiting.update(state=AccessRequest.State.GRANTED, decided_at=timezone.now())


def create_ref(
    adapter: Adapter, kind: str, name: str, revision: Revision, *, message: str = ""
) -> Ref:
    """Make a branch or tag that points at one of the adapter's revisions; the caller is its owner.

    Raises:
        RefTaken: there is one of this name.
        PublishError: there are too many.
    """
    with transaction.atomic():
        Adapter.objects.select_for_update(no_key=True).get(pk=adapter.pk)
        existing = adapter.refs.filter(name=name).first()
        if existing is not None:
            raise RefTaken(existing)
        if adapter.refs.count() >= MAX_REFS:
            raise PublishError({"": [f"An adapter has at most {MAX_REFS} branches and tags."]})
        return Ref.objects.create(
            adapter=adapter, kind=kind, name=name, revision=revision, message=message[:300]
        )


def delete_ref(adapter: Adapter, kind: str, name: str) -> bool:
    """Delete a branch or tag, but never main; say whether there was one. Its revisions stay."""
    refs = adapter.refs.filter(kind=kind, name=name).exclude(name=MAIN)
    return bool(refs.delete()[0])


def _check_new_name(owner: User, name: str, existing: Adapter | None, problems: Problems) -> None:
    try:
        validate_adapter_name(name)
    except ValidationError as error:
        problems.add("name", *error.messages)
    if existing is not None:
        problems.add("name", name_of_deleted(name))
    check_name_is_fresh(owner, name, problems)
