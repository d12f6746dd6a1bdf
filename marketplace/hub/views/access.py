"""Gated repositories as the clients handle them: list the requests, decide them, let people in."""

from __future__ import annotations

from django.db import models
from django.http import HttpRequest, HttpResponseBase, JsonResponse

from marketplace.accounts.models import User
from marketplace.catalogue import services
from marketplace.catalogue.models import AccessRequest, Adapter
from marketplace.hub.access import READS, Caller, hub_view
from marketplace.hub.addresses import is_storable
from marketplace.hub.bodies import read_field, read_object
from marketplace.hub.errors import BadRequest, HubError
from marketplace.hub.finding import find_adapter, find_own_adapter
from marketplace.hub.timestamps import utc

MAX_LISTED = 1000
STATES = {
    "pending": AccessRequest.State.PENDING,
    "accepted": AccessRequest.State.GRANTED,
    "rejected": AccessRequest.State.REFUSED,
}
_NAMES = {state: name for name, state in STATES.items()}


class NoSuchRequest(HubError):
    """No such user, or no request that could be changed like this."""

    status = 404


@hub_view(*READS)
def list_requests(
    request: HttpRequest, caller: Caller, owner: str, name: str, status: str
) -> HttpResponseBase:
    """List the requests in one state, for the owner."""
    adapter = _find_gated(request, caller, owner, name)
    rows = adapter.access_requests.filter(state=STATES[status]).select_related("user")
    found = [
        {
            "requestId": str(row.pk),
            "user": {
                "user": row.user.username,
                "fullname": row.user.get_full_name() or row.user.username,
            },
            "status": _NAMES[AccessRequest.State(row.state)],
            "timestamp": utc(row.created_at),
            "fields": {"message": row.message} if row.message else {},
        }
        for row in rows[:MAX_LISTED]
    ]
    return JsonResponse(found, safe=False)


@hub_view("POST")
def handle(request: HttpRequest, caller: Caller, owner: str, name: str) -> HttpResponseBase:
    """Accept or reject a request, or put it back to those that wait."""
    adapter = _find_gated(request, caller, owner, name)
    body = read_object(request)
    state = STATES.get(read_field(body, "status", str, ""))
    if state is None:
        raise BadRequest("“status” has to be “accepted”, “rejected” or “pending”.")
    user = _find_asker(adapter, body)
    try:
        services.decide_access(adapter, user, state, by=caller.require_writer())
    except services.NoSuchRequest as error:
        raise NoSuchRequest(str(error)) from None
    except services.CatalogueError as error:
        raise BadRequest(str(error)) from None
    return JsonResponse({"success": True})


@hub_view("POST")
def grant(request: HttpRequest, caller: Caller, owner: str, name: str) -> HttpResponseBase:
    """Let a user in who did not ask."""
    adapter = _find_gated(request, caller, owner, name)
    user = _find_user(read_field(read_object(request), "user", str, ""))
    try:
        services.grant_access(adapter, user, by=caller.require_writer())
    except services.CatalogueError as error:
        raise BadRequest(str(error)) from None
    return JsonResponse({"success": True})


@hub_view("POST")
def ask(request: HttpRequest, caller: Caller, owner: str, name: str) -> HttpResponseBase:
    """Ask for the files of a gated repository; a second time changes nothing."""
    adapter = find_adapter(request, caller, owner, name)
    user = caller.require_writer()
    try:
        asked = services.ask_for_access(adapter, user)
    except services.CatalogueError as error:
        raise BadRequest(str(error)) from None
    return JsonResponse({"status": _NAMES[AccessRequest.State(asked.state)]})


def _find_gated(request: HttpRequest, caller: Caller, owner: str, name: str) -> Adapter:
    adapter = find_own_adapter(request, caller, owner, name)
    if not adapter.is_gated:
        raise BadRequest(f"{adapter.full_name} is not gated: its files are open.")
    return adapter


def _find_asker(adapter: Adapter, body: dict[str, object]) -> User:
    """The user whom a request names, by name or by the request's id."""
    number = read_field(body, "requestId", str, "")
    if not number:
        return _find_user(read_field(body, "user", str, ""))
    rows: models.QuerySet[AccessRequest] = adapter.access_requests.select_related("user")
    is_number = number.isascii() and number.isdigit() and len(number) < len(str(2**63))
    found = rows.filter(pk=int(number)).first() if is_number else None
    if found is None:
        raise NoSuchRequest("There is no such request.")
    return found.user


def _find_user(name: str) -> User:
    rows = User.objects.filter(username__iexact=name, is_active=True)
    user = rows.first() if name and is_storable(name) else None
    if user is None:
        raise NoSuchRequest("There is no user of this name.")
    return user
