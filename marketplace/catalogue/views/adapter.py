"""The page of an adapter with its tabs, and the page of one revision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST, require_safe

from marketplace.accounts.visitors import signed_in
from marketplace.catalogue import services
from marketplace.catalogue.access_requests import find_request
from marketplace.catalogue.conditions import read_conditions
from marketplace.catalogue.languages import LANGUAGES
from marketplace.catalogue.licences import LICENCES
from marketplace.catalogue.lineage import list_children, list_parents
from marketplace.catalogue.markdown import render_markdown
from marketplace.catalogue.models import AccessRequest, Adapter, Like, Revision
from marketplace.catalogue.revision_facts import compare_trees, list_tensors
from marketplace.catalogue.snippets import CLIENTS, needs_token, write_snippet
from marketplace.catalogue.tray import read_tray
from marketplace.catalogue.views.fetching import get_adapter, get_revision

TABS = {
    "card": "Card",
    "files": "Files",
    "evaluation": "Evaluation",
    "lineage": "Lineage",
    "versions": "Versions",
}
TENSORS_SHOWN = 400


@require_safe
def show_adapter(request: HttpRequest, owner: str, name: str, tab: str = "") -> HttpResponse:
    """Show an adapter; `?tab=` chooses what is below its header."""
    adapter = get_adapter(request, owner, name)
    if f"{owner}/{name}" != adapter.full_name:
        return redirect("catalogue:adapter", *adapter.full_name.split("/"))
    chosen = request.GET.get("tab", "")
    chosen = chosen if chosen in TABS else "card"
    context = {
        **_shared_context(request, adapter),
        "tab": chosen,
        "tabs": _count_tabs(adapter),
        **_TAB_CONTEXTS[chosen](request, adapter),
    }
    return render(request, "catalogue/adapter.html", context)


@require_safe
def show_revision(request: HttpRequest, owner: str, name: str, label: str) -> HttpResponse:
    """Show one revision: its files, its parents, and what changed since the one before."""
    revision = get_revision(request, owner, name, label)
    adapter = revision.adapter
    context = {
        "nav": "catalogue",
        "adapter": adapter,
        "revision": revision,
        "is_own": adapter.owner_id == request.user.pk,
        "is_latest": adapter.latest_id == revision.pk,
        "changes": compare_trees(revision.parent, revision),
        "tensors": list_tensors(revision),
        "parents": list_parents(revision, request.user),
        "total_size": revision.files_size,
    }
    return render(request, "catalogue/revision.html", context)


@require_POST
def like(request: HttpRequest, owner: str, name: str) -> HttpResponse:
    """Like an adapter, or take the like back where it is liked already."""
    if not request.user.is_authenticated:
        return redirect(f"{settings.LOGIN_URL}")
    adapter = get_adapter(request, owner, name)
    user = signed_in(request)
    liked = Like.objects.filter(user=user, adapter=adapter).exists()
    adapter.likes = (services.unlike if liked else services.like)(adapter, user)
    if request.headers.get("HX-Request"):
        context = {"adapter": adapter, "is_liked": not liked}
        return render(request, "catalogue/_like.html", context)
    return redirect(adapter)


def _shared_context(request: HttpRequest, adapter: Adapter) -> dict[str, Any]:
    client = request.GET.get("client", "")
    client = client if client in CLIENTS else next(iter(CLIENTS))
    latest = adapter.latest
    return {
        "nav": "catalogue",
        "adapter": adapter,
        "revision": latest,
        "parent_count": latest.parents.count() if latest else 0,
        "is_own": adapter.owner_id == request.user.pk,
        "is_liked": request.user.is_authenticated
        and Like.objects.filter(user=request.user, adapter=adapter).exists(),
        "tray": read_tray(request),
        "language": LANGUAGES.get(adapter.language, adapter.language),
        "licence_name": LICENCES[adapter.licence].name if adapter.licence in LICENCES else "",
        "clients": CLIENTS,
        "client": client,
        "snippet": write_snippet(client, latest) if latest else "",
        "needs_token": needs_token(adapter),
        **_access_context(request, adapter),
    }


def _access_context(request: HttpRequest, adapter: Adapter) -> dict[str, Any]:
    """How the visitor stands at the gate, where there is one."""
    if not adapter.is_gated:
        return {}
    if adapter.owner_id == request.user.pk:
        waiting = adapter.access_requests.filter(state=AccessRequest.State.PENDING)
        return {"waiting_count": waiting.count(), "is_let_in": True}
    asked = find_request(adapter, request.user)
    return {
        "asked": asked,
        "is_let_in": asked is not None and asked.state == AccessRequest.State.GRANTED,
        "conditions": read_conditions(adapter),
    }


def _count_tabs(adapter: Adapter) -> list[dict[str, Any]]:
    latest = adapter.latest
    counts = {
        "files": latest.files.count() if latest else 0,
        "lineage": latest.parents.count() if latest else 0,
        "versions": adapter.revisions.accepted().count(),
    }
    return [{"key": key, "title": title, "count": counts.get(key)} for key, title in TABS.items()]


def _card_context(request: HttpRequest, adapter: Adapter) -> dict[str, Any]:
    return {"card": render_markdown(adapter.card), "samples": adapter.samples.all()}


def _files_context(request: HttpRequest, adapter: Adapter) -> dict[str, Any]:
    latest = adapter.latest
    if latest is None:
        return {"files": []}
    tensors = list_tensors(latest)
    return {
        "files": latest.files.select_related("blob"),
        "total_size": latest.files_size,
        "tensors": tensors[:TENSORS_SHOWN],
        "more_tensors": max(len(tensors) - TENSORS_SHOWN, 0),
    }


def _evaluation_context(request: HttpRequest, adapter: Adapter) -> dict[str, Any]:
    report = adapter.latest.provenance.get("report") if adapter.latest else None
    return {"report": report if isinstance(report, dict) and report.get("rows") else None}


def _lineage_context(request: HttpRequest, adapter: Adapter) -> dict[str, Any]:
    latest = adapter.latest
    notes = [f"{latest.label} · rank {latest.rank}"] if latest else []
    return {
        "parents": list_parents(latest, request.user) if latest else [],
        "children": list_children(adapter, request.user),
        "child": {"name": adapter.full_name, "url": "", "notes": notes},
    }


def _versions_context(request: HttpRequest, adapter: Adapter) -> dict[str, Any]:
    rows: Any = adapter.revisions.select_related("author")
    if adapter.owner_id != request.user.pk:
        rows = rows.filter(state=Revision.State.ACCEPTED)
    return {"revisions": rows}


_TAB_CONTEXTS: dict[str, Callable[[HttpRequest, Adapter], dict[str, Any]]] = {
    "card": _card_context,
    "files": _files_context,
    "evaluation": _evaluation_context,
    "lineage": _lineage_context,
    "versions": _versions_context,
}
