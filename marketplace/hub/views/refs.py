"""Branches, tags and the history of a repository."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from django.http import HttpRequest, JsonResponse
from django.utils.html import escape

from marketplace.catalogue.models import Ref
from marketplace.hub.access import READS, Caller, hub_view
from marketplace.hub.addresses import read_place
from marketplace.hub.finding import (
    Commit,
    History,
    find_adapter,
    find_revision,
    visible_revisions,
)
from marketplace.hub.parameters import is_true, link_next, read_list
from marketplace.hub.timestamps import utc

PAGE = 100


@hub_view(*READS)
def list_refs(request: HttpRequest, caller: Caller, owner: str, name: str) -> JsonResponse:
    """List branches and tags with the commits they lead this caller to."""
    adapter = find_adapter(request, caller, owner, name)
    history = History(adapter, visible_revisions(adapter, caller))
    found: dict[str, list[dict[str, str]]] = {"branches": [], "converts": [], "tags": []}
    for ref in adapter.refs.order_by("name"):
        is_tag = ref.kind == Ref.Kind.TAG
        commit = history.find_head(ref)
        if commit is not None:
            kind = "tags" if is_tag else "heads"
            entry = {
                "name": ref.name,
                "ref": f"refs/{kind}/{ref.name}",
                "targetCommit": commit.oid,
            }
            found["tags" if is_tag else "branches"].append(entry)
    if is_true(request.GET, "include_prs"):
        found["pullRequests"] = []
    return JsonResponse(found)


@hub_view(*READS)
def list_commits(request: HttpRequest, caller: Caller, owner: str, name: str) -> JsonResponse:
    """List the commits that led to a revision, newest first."""
    adapter = find_adapter(request, caller, owner, name)
    place = read_place(request, skip=5)
    revision = find_revision(adapter, caller, place.revision)
    history = History(adapter, visible_revisions(adapter, caller))
    chain = list(history.walk(revision.pk))
    formatted = "formatted" in read_list(request.GET, "expand")
    entries = [_describe(commit, formatted=formatted) for commit in chain[:PAGE]]
    response = JsonResponse(entries, safe=False)
    if len(chain) > PAGE:
        path = f"/api/models/{adapter.full_name}/commits/{quote(chain[PAGE].oid)}"
        link_next(response, request, path)
    return response


def _describe(commit: Commit, *, formatted: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "id": commit.oid,
        "title": commit.title,
        "message": commit.message,
        "date": utc(commit.created_at),
        "authors": [{"user": commit.author}] if commit.author else [],
    }
    if formatted:
        entry["formatted"] = {"title": escape(commit.title), "message": escape(commit.message)}
    return entry
