"""The common case of `resolve` in one query: a file of a public, open adapter, at main or an oid.

Who may see what is said by the catalogue's querysets alone. The query is built from them once and
kept as text, for building it anew takes longer than running it. What is not found here (private,
gated, on a branch, or missing) goes the long way, all of it alike.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.db import connection
from django.db.models import F

from marketplace.blobs.models import Blob
from marketplace.catalogue.models import Adapter, Revision, RevisionFile
from marketplace.catalogue.querysets import FULL_OID
from marketplace.hub.access import Caller
from marketplace.hub.addresses import MAX_PATH, Place, is_storable
from marketplace.hub.finding import MAIN

_OWNER, _NAME, _PATH, _OID = "?owner?", "?name?", "?path?", "?oid?"
_COLUMNS = (
    "revision__adapter_id", "revision__adapter__full_name", "revision__adapter__owner_id",
    "revision_id", "revision__oid", "path", "blob_id", "blob__git_sha1", "blob__size",
)  # fmt: skip


def find_public_file(
    owner: str, name: str, place: Place, caller: Caller
) -> tuple[Adapter, RevisionFile] | None:
    """Return the adapter and the file, or None where this way does not lead.

    Owners always go the long way: main may lead them to a draft.
    """
    at_main = place.revision == MAIN
    if not (at_main or FULL_OID.match(place.revision)) or len(place.path) > MAX_PATH:
        return None
    if not is_storable(owner + name + place.path):
        return None
    statement, blanks = _build(at_main=at_main)
    told = {f"{_OWNER}/{_NAME}": f"{owner}/{name}", _PATH: place.path, _OID: place.revision}
    with connection.cursor() as cursor:
        cursor.execute(statement, [told.get(blank, blank) for blank in blanks])
        row = cursor.fetchone()
    if row is None or row[2] == caller.user.pk:
        return None
    return _make(row)


@cache
def _build(*, at_main: bool) -> tuple[str, tuple[Any, ...]]:
    """Return the statement and its parameters, with blanks for those of a request."""
    everybody = AnonymousUser()
    adapters = Adapter.objects.may_download(everybody)
    rows = RevisionFile.objects.filter(
        path=_PATH,
        revision__adapter__in=adapters.named(_OWNER, _NAME).values("pk"),
        revision__state=Revision.State.ACCEPTED,
    )
    if at_main:
        rows = rows.filter(revision_id=F("revision__adapter__latest_id"))
    else:
        rows = rows.filter(revision__oid=_OID)
    statement, parameters = rows.order_by().values_list(*_COLUMNS).query.sql_with_params()
    return statement, tuple(parameters)


def _make(row: tuple[Any, ...]) -> tuple[Adapter, RevisionFile]:
    adapter_id, full_name, owner_id, revision_id, oid, path, sha256, git_sha1, size = row
    adapter = Adapter(
        pk=adapter_id, full_name=full_name, owner_id=owner_id,
        visibility=Adapter.Visibility.PUBLIC, gated=Adapter.Gate.OPEN,
    )  # fmt: skip
    revision = Revision(pk=revision_id, adapter=adapter, oid=oid)
    blob = Blob(sha256=sha256, git_sha1=git_sha1, size=size)
    return adapter, RevisionFile(revision=revision, path=path, blob=blob)
