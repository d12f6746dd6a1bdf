"""Addresses that clients try and we have nothing at: answered in their language, not in HTML.

Clients look for base models, data sets and single-segment ids on the same host as for adapters.
Web addresses that the clients print lead to the site's own pages.
"""

from __future__ import annotations

from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect, JsonResponse
from django.urls import reverse
from django.views.decorators.http import require_safe

from marketplace.hub.access import READS, Caller, hub_view
from marketplace.hub.addresses import read_place
from marketplace.hub.errors import EntryNotFound, RepoNotFound
from marketplace.hub.finding import MAIN, find_adapter

ANY_METHOD = (*READS, "POST", "PUT", "PATCH", "DELETE")


@hub_view(*ANY_METHOD)
def no_repository(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """Answer as for any repository that does not exist."""
    raise RepoNotFound(signed_in=caller.is_known)


@hub_view(*ANY_METHOD)
def no_endpoint(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """Say that this part of the protocol is not spoken here."""
    raise EntryNotFound("This site does not offer this part of the API. See /docs/hub.")


@hub_view(*READS)
def no_discussions(request: HttpRequest, caller: Caller, owner: str, name: str) -> JsonResponse:
    """List no discussions: there are none on this site."""
    find_adapter(request, caller, owner, name)
    return JsonResponse({"discussions": [], "count": 0, "start": 0})


@require_safe
def go_to_page(request: HttpRequest, owner: str, name: str) -> HttpResponseBase:
    """Lead from an address of the hub's web pages to ours: the adapter's, or one revision's."""
    revision = read_place(request, skip=3).revision
    if revision in {"", MAIN} or "/" in revision:
        return HttpResponseRedirect(reverse("catalogue:adapter", args=[owner, name]))
    return HttpResponseRedirect(reverse("catalogue:revision", args=[owner, name, revision]))
