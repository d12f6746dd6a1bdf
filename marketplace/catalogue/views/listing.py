"""The catalogue's list and the page of an owner."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_safe

from marketplace.accounts.models import User
from marketplace.catalogue.models import Adapter, Tag
from marketplace.catalogue.search import read_query, search
from marketplace.catalogue.search.query import FACTOR, MAX_EXAMPLES, CatalogueQuery
from marketplace.catalogue.tray import read_tray

MAX_SUGGESTIONS = 20


@require_safe
def list_adapters(request: HttpRequest) -> HttpResponse:
    """Show the shelf; htmx asks for the parts that change with the query."""
    query = read_query(request.GET)
    results = search(request.user, query)
    encoded = query.encode(page=1, cursor="")
    context = {
        "nav": "catalogue",
        "hide_search": True,
        "results": results,
        "query": query,
        "page_query": f"{encoded}&" if encoded else "",
        "same_shape": query.encode(page=1, cursor="", by=FACTOR),
        "any_method": query.encode(page=1, cursor="", by=""),
        "sorts": query.sort_choices(),
        "tray": read_tray(request),
        "max_examples": MAX_EXAMPLES,
    }
    partial = request.headers.get("HX-Request") and not request.headers.get("HX-Boosted")
    restored = request.headers.get("HX-History-Restore-Request")
    template = "catalogue/_results.html" if partial and not restored else "catalogue/list.html"
    response = render(request, template, context)
    response["Vary"] = "HX-Request, Cookie"
    if partial:  # the address without the form's empty fields
        response["HX-Push-Url"] = f"{request.path}?{query.encode()}".rstrip("?")
    return response


@require_safe
def show_owner(request: HttpRequest, owner: str) -> HttpResponse:
    """Show a user's adapters: everything to themselves, the public ones to others."""
    user = User.objects.filter(username__iexact=owner.replace("\x00", ""), is_active=True).first()
    if user is None:
        raise Http404("There is no such user.")
    if user.username != owner:
        return redirect("catalogue:owner", user.username, permanent=True)
    own = read_query(request.GET)
    query = CatalogueQuery(
        filters={"owner": (user.username,)}, sort="newest", page=own.page, cursor=own.cursor
    )
    visible = Adapter.objects.visible_to(request.user).filter(owner=user)
    context = {
        "nav": "catalogue",
        "owner": user,
        "is_own": request.user == user,
        "results": search(request.user, query),
        "downloads": sum(visible.values_list("downloads", flat=True)),
        "likes": sum(visible.values_list("likes", flat=True)),
        "tray": read_tray(request),
        "page_query": "",
    }
    return render(request, "catalogue/owner.html", context)


@require_safe
def suggest_tags(request: HttpRequest) -> HttpResponse:
    """Answer the tag field's list of suggestions: tags of visible adapters that begin like this."""
    typed = request.GET.get("tags", "").rpartition(",")[2].strip().lower().replace("\x00", "")
    visible = Adapter.objects.visible_to(request.user)
    found = (
        Tag.objects.filter(name__startswith=typed, adapters__in=visible)
        .distinct()
        .order_by("name")[:MAX_SUGGESTIONS]
    )
    return render(request, "catalogue/_tag_options.html", {"tags": found})
