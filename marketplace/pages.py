"""Pages that belong to no app: the front page, the documentation, errors, theme, health.

What they show of the shelf comes from the catalogue's querysets; everything else is a template.
The error pages answer in JSON below /api/ and never show more than a sentence and the request id.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import redis
from django.conf import settings
from django.core.cache import cache
from django.db import (
    DatabaseError,
    InterfaceError,
    OperationalError,
    close_old_connections,
    connection,
)
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import requires_csrf_token
from django.views.decorators.http import require_POST, require_safe

from marketplace.catalogue.models import Adapter, Revision
from marketplace.catalogue.tray import read_tray
from marketplace.documents import DOCUMENTS, render_document
from marketplace.request_ids import read_id
from marketplace.styleguide import styleguide_context

logger = logging.getLogger(__name__)

THEMES = ("light", "dark")
THEME_COOKIE = "theme"
THEME_SECONDS = 365 * 24 * 3600
FRONT_ROWS = 6
DOCS = (
    ("composing", "How composing works"),
    ("adapters", "Use an adapter"),
    ("uploading", "Upload an adapter"),
    *((slug, document.title) for slug, document in DOCUMENTS.items()),
)


def site_context(request: HttpRequest) -> dict[str, Any]:
    """Give every template the site's name, version, address and the visitor's theme.

    The name is `brand`: Django's sign-in view overwrites a `site_name`.
    """
    theme = request.COOKIES.get(THEME_COOKIE, "")
    return {
        "brand": settings.SITE_NAME,
        "site_version": settings.VERSION,
        "public_url": settings.PUBLIC_URL,
        "theme": theme if theme in THEMES else "",
    }


# ---- pages ---------------------------------------------------------------------------------------


@require_safe
def front(request: HttpRequest) -> HttpResponse:
    """Show what the site is for, the newest composition and the adapters most used."""
    shelf = Adapter.objects.visible_to(request.user).filter(latest__isnull=False)
    rows = shelf.select_related("owner", "base_model", "latest").prefetch_related("tags")
    composed = rows.filter(kind=Adapter.Kind.COMPOSED).order_by("-updated_at").first()
    return render(
        request,
        "front.html",
        {
            "adapters": rows.order_by("-downloads", "-updated_at")[:FRONT_ROWS],
            "adapter_count": shelf.count(),
            "tray": read_tray(request),
            "composed": composed,
            **(_show_composition(composed.latest) if composed and composed.latest else {}),
        },
    )


def _show_composition(revision: Revision) -> dict[str, Any]:
    """Return the lineage and report of a composed revision, as the charts take them."""
    edges = revision.parents.select_related("parent__adapter__owner")
    parents = [
        {
            "name": edge.parent.adapter.full_name,
            "url": edge.parent.adapter.get_absolute_url(),
            "weight": edge.weight,
            "note": f"{edge.parent.label} · {edge.parent.short_oid}",
        }
        for edge in edges
    ]
    child = {
        "name": revision.adapter.full_name,
        "url": revision.adapter.get_absolute_url(),
        "notes": [f"{revision.label} · rank {revision.rank}"],
    }
    report = revision.provenance.get("report")
    return {"parents": parents, "child": child, "report": report}


@require_safe
def docs(request: HttpRequest, page: str = DOCS[0][0]) -> HttpResponse:
    """Show one page of the documentation."""
    if page not in dict(DOCS):
        raise Http404(f"There is no documentation page called {page!r}.")
    context = {"nav": "docs", "pages": DOCS, "page": page, "page_title": dict(DOCS)[page]}
    if page in DOCUMENTS:
        return render(request, "docs/document.html", {**context, "document": render_document(page)})
    return render(request, f"docs/{page}.html", context)


@require_safe
def api_reference(request: HttpRequest) -> HttpResponse:
    """Show the JSON API, drawn from the same schema that programs read."""
    from marketplace.api_reference import describe_api  # noqa: PLC0415 - needs the loaded addresses

    context = {"nav": "docs", "pages": DOCS, "page": "reference", "groups": describe_api()}
    return render(request, "docs/reference.html", context)


@require_safe
def styleguide(request: HttpRequest) -> HttpResponse:
    """Show every component in every state; only while developing."""
    if not settings.DEBUG:
        raise Http404("The style guide is shown with DEBUG only.")
    return render(request, "styleguide.html", styleguide_context())


@require_POST
def set_theme(request: HttpRequest) -> HttpResponse:
    """Remember light or dark in a cookie, or forget it to follow the system."""
    target = request.POST.get("next", "")
    if not url_has_allowed_host_and_scheme(
        target, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    ):
        target = "/"
    response = redirect(target)
    theme = request.POST.get("theme", "")
    if theme in THEMES:
        response.set_cookie(
            THEME_COOKIE,
            theme,
            max_age=THEME_SECONDS,
            secure=settings.SESSION_COOKIE_SECURE,
            httponly=True,
            samesite="Lax",
        )
    else:
        response.delete_cookie(THEME_COOKIE, samesite="Lax")
    return response


# ---- health --------------------------------------------------------------------------------------


@require_safe
@never_cache
def healthz(request: HttpRequest) -> HttpResponse:
    """Say that the process answers; touches nothing else."""
    return HttpResponse("ok\n", content_type="text/plain")


@require_safe
@never_cache
def readyz(request: HttpRequest) -> HttpResponse:
    """Say whether the site can serve: it needs the database, and reports cache and queue.

    Browsing and downloads go on without the queue, so only a missing database answers 503.
    """
    checks = {"database": _check_database(), "cache": _check_cache(), "queue": _check_queue()}
    ready = checks["database"] == "ok"
    status = "unavailable" if not ready else "ok" if set(checks.values()) == {"ok"} else "degraded"
    return JsonResponse({"status": status, "checks": checks}, status=200 if ready else 503)


def _check_database() -> str:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        logger.warning("readyz: the database does not answer", exc_info=True)
        return "unavailable"
    return "ok"


def _check_cache() -> str:
    try:
        cache.get("readyz")
    except (OSError, redis.RedisError):
        logger.warning("readyz: the cache does not answer", exc_info=True)
        return "unavailable"
    return "ok"


def _check_queue() -> str:
    from marketplace.celery import app  # noqa: PLC0415 - the other checks must not wait for it

    try:
        with app.connection_for_write(connect_timeout=2) as queue:
            queue.ensure_connection(max_retries=1, timeout=2)
    except Exception:
        # Each broker's library raises errors of its own; whichever it is, the queue is not there.
        logger.warning("readyz: the queue does not answer", exc_info=True)
        return "unavailable"
    return "ok"


# ---- errors --------------------------------------------------------------------------------------

MESSAGES = {
    400: "This request could not be understood.",
    403: "You are not allowed to do this.",
    404: "There is nothing at this address.",
    413: "This is larger than the site accepts.",
    429: "Too many requests. Wait a little and try again.",
    500: "Something went wrong on our side.",
    503: "The site is not available for a moment.",
}


@requires_csrf_token
def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer 400."""
    return error_page(request, 400)


@requires_csrf_token
def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer 403, with the reason where a view gave one in its own words."""
    return error_page(request, 403, detail=str(exception))


@requires_csrf_token
def csrf_failed(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Answer 403 to a form that was open for too long or came from another site."""
    logger.warning("CSRF check failed: %s", reason, extra={"path": request.path})
    return error_page(
        request,
        403,
        detail="The form was open for too long, or cookies are blocked for this site. "
        "Go back, reload the page and send it again.",
    )


@requires_csrf_token
def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer 404; a private adapter looks exactly like a missing one."""
    return error_page(request, 404)


@requires_csrf_token
def server_error(request: HttpRequest) -> HttpResponse:
    """Answer 500, or 503 where the database is away; needs no database, session or user."""
    error = sys.exc_info()[1]
    if isinstance(error, OperationalError | InterfaceError):
        response = error_page(request, 503)
        response["Retry-After"] = "10"
        return response
    return error_page(request, 500)


def error_page(request: HttpRequest, status: int, *, detail: str = "") -> HttpResponse:
    """Render the page of an error, or its JSON below /api/."""
    request_id = read_id(request)
    if request.path.startswith("/api/"):
        message = detail or MESSAGES[status]
        return JsonResponse({"error": message, "request_id": request_id}, status=status)
    context = {"detail": detail, "request_id": request_id, "status": status}
    if status in (400, 500, 503):
        # These must work without session, user and database: no context processors.
        theme = site_context(request)
        return HttpResponse(render_to_string(f"{status}.html", {**theme, **context}), status=status)
    try:
        return render(request, f"{status}.html", context, status=status)
    finally:
        # Under ASGI Django renders error pages in a thread of its own, where nothing else gives
        # back the connection that looking up the visitor took: the pool would run dry.
        if not connection.in_atomic_block:
            close_old_connections()
