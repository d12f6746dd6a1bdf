"""What files a revision holds: the tree, page by page, and single paths of it."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from django.http import HttpRequest, JsonResponse

from marketplace.catalogue.models import Adapter, Revision
from marketplace.hub.access import READS, Caller, hub_view
from marketplace.hub.addresses import read_place
from marketplace.hub.entries import (
    Entry,
    add_last_commits,
    find_entries,
    list_entries,
    list_files,
    list_last_commits,
)
from marketplace.hub.errors import BadRequest, EntryNotFound
from marketplace.hub.finding import History, find_adapter, find_revision, visible_revisions
from marketplace.hub.parameters import is_true, link_next

PAGE = 1000
MAX_PATHS = 1000


@hub_view(*READS)
def list_tree(request: HttpRequest, caller: Caller, owner: str, name: str) -> JsonResponse:
    """List a folder of a revision, with everything below it when asked."""
    adapter = find_adapter(request, caller, owner, name)
    place = read_place(request, skip=5)
    revision = find_revision(adapter, caller, place.revision)
    recursive = is_true(request.GET, "recursive")
    entries = list_entries(list_files(revision), place.path, recursive=recursive)
    if place.path and not entries:
        raise EntryNotFound(f"{place.path} does not exist on this revision", commit=revision.oid)
    start = _read_start(request)
    page = entries[start : start + PAGE]
    if is_true(request.GET, "expand"):
        _add_commits(adapter, caller, revision, page)
    response = JsonResponse(page, safe=False)
    response["X-Repo-Commit"] = revision.oid
    if start + PAGE < len(entries):
        # The next page is one of the same revision, whatever the branch does meanwhile.
        folder = f"/{quote(place.path, safe='')}" if place.path else ""
        path = f"/api/models/{adapter.full_name}/tree/{revision.oid}{folder}"
        link_next(response, request, path, cursor=str(start + PAGE))
    return response


@hub_view("POST")
def list_paths(request: HttpRequest, caller: Caller, owner: str, name: str) -> JsonResponse:
    """Describe the files and folders asked for; those that do not exist are left out."""
    adapter = find_adapter(request, caller, owner, name)
    revision = find_revision(adapter, caller, read_place(request, skip=5).revision)
    paths, expand = _read_paths(request)
    if len(paths) > MAX_PATHS:
        raise BadRequest(f"At most {MAX_PATHS} paths at once; these are {len(paths)}.")
    entries = find_entries(list_files(revision), paths)
    if expand:
        _add_commits(adapter, caller, revision, entries)
    return JsonResponse(entries, safe=False)


def _add_commits(
    adapter: Adapter, caller: Caller, revision: Revision, entries: list[Entry]
) -> None:
    history = History(adapter, visible_revisions(adapter, caller))
    add_last_commits(entries, list_last_commits(revision, list(history.walk(revision.pk))))


def _read_start(request: HttpRequest) -> int:
    text = request.GET.get("cursor", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 10):  # noqa: PLR2004
        raise BadRequest("This cursor is none of ours. Begin again without it.")
    return int(text)


def _read_paths(request: HttpRequest) -> tuple[list[str], bool]:
    """Read the form of today's clients, or the JSON of others."""
    if request.content_type != "application/json":
        return request.POST.getlist("paths"), is_true(request.POST, "expand")
    try:
        said: Any = json.loads(request.body)
    except ValueError:
        said = None
    paths = said.get("paths") if isinstance(said, dict) else None
    paths = [paths] if isinstance(paths, str) else paths
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise BadRequest('The body is JSON like {"paths": ["README.md"], "expand": false}.')
    return paths, said.get("expand") is True
