"""Putting adapters into the compose tray and taking them out, with and without htmx."""

from __future__ import annotations

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST

from marketplace.catalogue.models import Adapter, Revision
from marketplace.catalogue.tray import (
    MAX_REVISIONS,
    add_to_tray,
    clear_tray,
    read_tray,
    remove_from_tray,
)
from marketplace.catalogue.views.fetching import MISSING


@require_POST
def add(request: HttpRequest) -> HttpResponse:
    """Put a revision into the tray."""
    revision = _get_posted_revision(request)
    if not add_to_tray(request, revision):
        messages.warning(request, f"The tray holds {MAX_REVISIONS} adapters. Take one out first.")
    return _answer(request, revision.adapter)


@require_POST
def remove(request: HttpRequest) -> HttpResponse:
    """Take a revision's adapter out of the tray."""
    revision = _get_posted_revision(request)
    remove_from_tray(request, revision.adapter_id)
    return _answer(request, revision.adapter)


@require_POST
def clear(request: HttpRequest) -> HttpResponse:
    """Empty the tray."""
    clear_tray(request)
    return _answer(request, None)


def _get_posted_revision(request: HttpRequest) -> Revision:
    number = request.POST.get("revision", "")
    if not number.isascii() or not number.isdigit() or len(number) > 18:  # noqa: PLR2004
        raise Http404(MISSING)
    rows = Revision.objects.visible_to(request.user).on_shelf().select_related("adapter__owner")
    revision = rows.filter(pk=int(number)).first()
    if revision is None:
        raise Http404(MISSING)
    return revision


def _answer(request: HttpRequest, adapter: Adapter | None) -> HttpResponse:
    if not request.headers.get("HX-Request"):
        target = request.POST.get("next", "")
        is_ours = url_has_allowed_host_and_scheme(
            target, allowed_hosts={request.get_host()}, require_https=request.is_secure()
        )
        return redirect(target if is_ours else "catalogue:list")
    context = {"adapter": adapter, "tray": read_tray(request), "is_answer": True}
    context["big"] = bool(request.POST.get("big"))
    return render(request, "catalogue/_tray_answer.html", context)
