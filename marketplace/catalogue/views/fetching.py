"""How a page gets its adapter: with the access rule as part of the fetch.

What a user may not see answers exactly like what does not exist.
"""

from __future__ import annotations

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest
from rest_framework.request import Request

from marketplace.catalogue.models import Adapter, Revision

MISSING = "There is no such adapter."
GATED = "The files of this adapter are only for people whom its owner let in."


def get_adapter(request: HttpRequest | Request, owner: str, name: str) -> Adapter:
    """Return the adapter at this address, if the visitor may know of it.

    Raises:
        Http404: it is missing, private or deleted.
    """
    adapter = (
        Adapter.objects.visible_to(request.user)
        .named(_storable(owner), _storable(name))
        .select_related("owner", "base_model", "latest__base_model")
        .first()
    )
    if adapter is None:
        raise Http404(MISSING)
    return adapter


def get_own_adapter(request: HttpRequest | Request, owner: str, name: str) -> Adapter:
    """Return the adapter, if it is the visitor's own.

    Raises:
        Http404: it is missing or somebody else's.
    """
    adapter = get_adapter(request, owner, name)
    if adapter.owner_id != request.user.pk:
        raise Http404(MISSING)
    return adapter


def get_revision(request: HttpRequest | Request, owner: str, name: str, label: str) -> Revision:
    """Return a revision by v3, full id, branch or tag; yanked ones are found by these as well.

    Raises:
        Http404: it is missing, or the visitor may not know of it.
    """
    revisions = Revision.objects.visible_to(request.user).of(_storable(owner), _storable(name))
    revision = revisions.select_related("adapter__owner", "base_model", "author", "parent").at(
        _storable(label)
    )
    if revision is None:
        raise Http404(MISSING)
    return revision


def get_readable_revision(
    request: HttpRequest | Request, owner: str, name: str, label: str
) -> Revision:
    """Return a revision whose files the visitor may fetch.

    Raises:
        Http404: it is missing, or the visitor may not know of it.
        PermissionDenied: its adapter is gated, and the visitor was not let in.
    """
    revision = get_revision(request, owner, name, label)
    if not Revision.objects.readable_files_by(request.user).filter(pk=revision.pk).exists():
        raise PermissionDenied(GATED)
    return revision


def _storable(text: str) -> str:
    """A name with a NUL or half a surrogate pair names nothing, and the database refuses it."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")
