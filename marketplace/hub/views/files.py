"""One file of a revision: `/<owner>/<name>/resolve/<revision>/<path>`.

Every load of an adapter asks here several times, mostly with HEAD, so what everybody may fetch
takes one query: see `public_files`. How bytes leave is left to `marketplace.blobs`; an object
storage that signs addresses sends large files itself.
"""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, HttpResponseBase

from marketplace.blobs.responses import blob_response
from marketplace.blobs.services import signed_url
from marketplace.catalogue import services
from marketplace.catalogue.models import Adapter, RevisionFile
from marketplace.catalogue.querysets import FULL_OID
from marketplace.catalogue.views.files import WEIGHTS
from marketplace.hub.access import READS, Caller, hub_view
from marketplace.hub.addresses import MAX_PATH, Place, is_storable, read_place
from marketplace.hub.entries import etag_of
from marketplace.hub.errors import EntryNotFound
from marketplace.hub.finding import MAIN, check_may_download, find_adapter, find_revision
from marketplace.hub.lfs_rule import is_lfs
from marketplace.hub.public_files import find_public_file


@hub_view(*READS)
def resolve(request: HttpRequest, caller: Caller, owner: str, name: str) -> HttpResponseBase:
    """Send the file, or say with HEAD what would be sent."""
    place = read_place(request, skip=3)
    found = find_public_file(owner, name, place, caller)
    if found is None:
        adapter = find_adapter(request, caller, owner, name, briefly=True)
        check_may_download(adapter, caller)
        file = _find_file(adapter, caller, place)
    else:
        adapter, file = found
    response = _send(request, file, _headers(adapter, file, place))
    if file.path == WEIGHTS and request.method == "GET" and _is_whole(request, response):
        services.count_download(adapter)
    return response


def _find_file(adapter: Adapter, caller: Caller, place: Place) -> RevisionFile:
    if len(place.path) <= MAX_PATH and is_storable(place.path + place.revision):
        is_own = adapter.owner_id == caller.user.pk
        rows = RevisionFile.objects.filter(path=place.path).select_related("blob", "revision")
        rows = rows.defer("revision__summary_json", "revision__problems", "revision__provenance")
        if place.revision == MAIN and not is_own:
            rows = rows.filter(revision_id=adapter.latest_id or 0)
        elif FULL_OID.match(place.revision):
            rows = rows.filter(revision__adapter_id=adapter.pk, revision__oid=place.revision)
            rows = rows if is_own else rows.filter(revision__state="accepted")
        else:
            rows = rows.filter(revision=find_revision(adapter, caller, place.revision))
        if file := rows.first():
            return file
    # Is it the revision that is not there, or the file?
    revision = find_revision(adapter, caller, place.revision)
    raise EntryNotFound("Entry not found", commit=revision.oid)


def _headers(adapter: Adapter, file: RevisionFile, place: Place) -> dict[str, str]:
    headers = {"X-Repo-Commit": file.revision.oid}
    if is_lfs(file.path, file.blob.size):
        headers["X-Linked-Etag"] = f'"{file.blob.sha256}"'
        headers["X-Linked-Size"] = str(file.blob.size)
    if adapter.visibility == Adapter.Visibility.PRIVATE or adapter.is_gated:
        headers["Cache-Control"] = "private, no-store"
    elif FULL_OID.match(place.revision):
        headers["Cache-Control"] = "private, max-age=604800, immutable"
    else:
        headers["Cache-Control"] = "private, no-cache"
    return headers


def _send(request: HttpRequest, file: RevisionFile, headers: dict[str, str]) -> HttpResponseBase:
    etag = etag_of(file.path, file.blob)
    elsewhere = signed_url(file.blob) if is_lfs(file.path, file.blob.size) else None
    if elsewhere is None:
        filename = file.path.rpartition("/")[2]
        return blob_response(request, file.blob, filename=filename, etag=etag, headers=headers)
    # The address is good for a while only, so nobody may keep this answer.
    told = headers | {"Cache-Control": "private, no-store", "Accept-Ranges": "bytes"}
    response = HttpResponse(status=302, headers=told)
    response["ETag"] = f'"{etag}"'
    response["Location"] = elsewhere
    return response


def _is_whole(request: HttpRequest, response: HttpResponseBase) -> bool:
    """Whether a whole file leaves: parts of a resumed download are no further downloads."""
    return response.status_code in {200, 302} and "Range" not in request.headers
