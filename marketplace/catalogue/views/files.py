"""Downloads: one file of a revision, or all of them as a zip; both are counted.

Exact pins work for yanked revisions too. How bytes leave (ranges, ETags, attachment) is left to
`marketplace.blobs`.
"""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponseBase
from django.views.decorators.http import require_safe

from marketplace.blobs.responses import blob_response
from marketplace.blobs.zips import ZipEntry, zip_response
from marketplace.catalogue import services
from marketplace.catalogue.models import Adapter, Revision
from marketplace.catalogue.views.fetching import MISSING, get_readable_revision

MAX_PATH = 500
WEIGHTS = "adapter_model.safetensors"


@require_safe
def download_file(
    request: HttpRequest, owner: str, name: str, label: str, path: str
) -> HttpResponseBase:
    """Send one file of a revision; only its own tree can be named."""
    revision = get_readable_revision(request, owner, name, label)
    if len(path) > MAX_PATH or "\x00" in path:
        raise Http404(MISSING)
    file = revision.files.filter(path=path).select_related("blob").first()
    if file is None:
        raise Http404(MISSING)
    headers = _cache_headers(revision) | {"X-Repo-Commit": revision.oid}
    filename = path.rpartition("/")[2]
    response = blob_response(request, file.blob, filename=filename, headers=headers)
    if path == WEIGHTS and response.status_code in {200, 206}:
        _count(request, revision.adapter)
    return response


@require_safe
def download_zip(request: HttpRequest, owner: str, name: str, label: str) -> HttpResponseBase:
    """Send every file of a revision in one archive."""
    revision = get_readable_revision(request, owner, name, label)
    files = revision.files.select_related("blob")
    entries = [ZipEntry(file.path, file.blob) for file in files]
    filename = f"{revision.adapter.name}-{revision.label}.zip"
    response = zip_response(request, entries, filename=filename)
    for header, value in _cache_headers(revision).items():
        response[header] = value
    _count(request, revision.adapter)
    return response


def _count(request: HttpRequest, adapter: Adapter) -> None:
    """Count a download once: not a HEAD, and not the later parts of a resumed one."""
    resumed = not request.headers.get("Range", "bytes=0-").startswith("bytes=0-")
    if request.method == "GET" and not resumed:
        services.count_download(adapter)


def _cache_headers(revision: Revision) -> dict[str, str]:
    is_public = revision.adapter.visibility == Adapter.Visibility.PUBLIC
    return {"Cache-Control": "private, no-cache" if is_public else "private, no-store"}
