"""From an address to an adapter and a revision, with access as part of the search.

What a caller may not see takes the same road, and the same queries, as what does not exist. A
branch leads to the newest revision on it that the caller may see and that is on the shelf; tags and
full ids are exact pins, which yanked revisions keep answering to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from django.http import HttpRequest

from marketplace.catalogue.models import Adapter, Ref, Revision
from marketplace.catalogue.querysets import FULL_OID, VERSION_LABEL, RevisionQuerySet
from marketplace.hub.access import Caller
from marketplace.hub.addresses import is_storable, moved_to
from marketplace.hub.errors import Gated, Moved, NotAllowed, RepoNotFound, RevisionNotFound

MAIN = "main"
_HEAVY = ("card", "search", "search_text", "base_model__module_table")


def find_adapter(
    request: HttpRequest, caller: Caller, owner: str, name: str, *, briefly: bool = False
) -> Adapter:
    """Return the adapter at this address, with its owner, base model and latest revision.

    `briefly` reads only the row itself, as far as access and the way to a file need it.

    Raises:
        Moved: it has another address now.
        RepoNotFound: it is missing, or not for this caller to know of.
    """
    if is_storable(owner + name):
        visible = Adapter.objects.visible_to(caller.user)
        if briefly:
            visible = visible.only("full_name", "visibility", "gated", "owner_id", "latest_id")
        else:
            visible = visible.select_related("owner", "base_model", "latest").defer(*_HEAVY)
        adapter = visible.named(owner, name).first()
        if adapter is not None:
            return adapter
        moved = visible.formerly_named(owner, name).first()
        if moved is not None:
            raise Moved(moved_to(request, moved.full_name))
    raise RepoNotFound(signed_in=caller.is_known)


def find_own_adapter(request: HttpRequest, caller: Caller, owner: str, name: str) -> Adapter:
    """Return the adapter for a change by its owner, whose token may write.

    Raises:
        RepoNotFound, BadToken, NotAllowed: whatever is the first in the way.
    """
    adapter = find_adapter(request, caller, owner, name)
    user = caller.require_writer()
    if adapter.owner_id != user.pk:
        raise NotAllowed(f"Only the owner of {adapter.full_name} can change it.")
    return adapter


def check_may_download(adapter: Adapter, caller: Caller) -> None:
    """Raise Gated where the caller sees the adapter, but was not let in to its files."""
    if not adapter.is_gated or adapter.owner_id == caller.user.pk:
        return
    if not Adapter.objects.may_download(caller.user).filter(pk=adapter.pk).exists():
        raise Gated(adapter.full_name, signed_in=caller.is_known)


def find_revision(adapter: Adapter, caller: Caller, name: str) -> Revision:
    """Return what a branch, tag, full id or version label names.

    Raises:
        RevisionNotFound: nothing that this caller may see.
    """
    found = None
    if name == MAIN and adapter.owner_id != caller.user.pk:
        found = adapter.latest
    elif is_storable(name):
        found = _find_named(adapter, visible_revisions(adapter, caller), name)
    if found is None:
        raise RevisionNotFound(name)
    return found


def visible_revisions(adapter: Adapter, caller: Caller) -> RevisionQuerySet:
    """Every revision for the owner, the accepted ones for others."""
    rows = Revision.objects.filter(adapter=adapter)
    return rows if adapter.owner_id == caller.user.pk else rows.accepted()


def _find_named(adapter: Adapter, visible: RevisionQuerySet, name: str) -> Revision | None:
    if FULL_OID.match(name):
        return visible.filter(oid=name).first()
    ref = Ref.objects.filter(adapter=adapter, name=name).first()
    if ref is None:
        return visible.filter(number=int(name[1:])).first() if VERSION_LABEL.match(name) else None
    revision = visible.filter(pk=ref.revision_id).first()
    if ref.kind == Ref.Kind.TAG or (revision and not revision.is_yanked):
        return revision
    commit = History(adapter, visible).find_head(ref)
    return visible.filter(pk=commit.pk).first() if commit else None


@dataclass(frozen=True)
class Commit:
    """What a history says of a revision."""

    pk: int
    oid: str
    title: str
    message: str
    author: str
    created_at: datetime
    is_yanked: bool


class History:
    """The revisions of an adapter that a caller may see, and how they follow each other."""

    def __init__(self, adapter: Adapter, visible: RevisionQuerySet) -> None:
        # Parents of all revisions: a walk leads past those that the caller may not see.
        self._parents = dict(adapter.revisions.values_list("pk", "parent_id"))
        rows = visible.values_list(
            "pk", "oid", "title", "message", "author__username", "created_at", "yanked_at"
        )
        self._commits = {
            pk: Commit(pk, oid, title, message, author or "", created_at, yanked_at is not None)
            for pk, oid, title, message, author, created_at, yanked_at in rows
        }

    def walk(self, pk: int) -> Iterator[Commit]:
        """Yield the revision and what came before it, newest first."""
        following: int | None = pk
        while following is not None:
            if following in self._commits:
                yield self._commits[following]
            following = self._parents.get(following)

    def find_head(self, ref: Ref) -> Commit | None:
        """Return where a ref leads: a branch to the newest that is on the shelf, a tag exactly."""
        if ref.kind == Ref.Kind.TAG:
            return self._commits.get(ref.revision_id)
        return next((commit for commit in self.walk(ref.revision_id) if not commit.is_yanked), None)
