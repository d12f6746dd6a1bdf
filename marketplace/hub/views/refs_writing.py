"""Make and delete branches and tags."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponseBase, JsonResponse

from marketplace.catalogue import services
from marketplace.catalogue.models import Adapter, Ref
from marketplace.hub.access import Caller, hub_view
from marketplace.hub.addresses import check_ref_name, is_storable, read_place
from marketplace.hub.bodies import read_field, read_object
from marketplace.hub.errors import BadRequest, Conflict, NotAllowed, RevisionNotFound
from marketplace.hub.finding import MAIN, find_own_adapter, find_revision


@hub_view("POST", "DELETE")
def change_branch(request: HttpRequest, caller: Caller, owner: str, name: str) -> HttpResponseBase:
    """Make a branch from a revision, main's unless told otherwise; or delete one."""
    adapter = find_own_adapter(request, caller, owner, name)
    branch = read_place(request, skip=5).revision
    if request.method == "DELETE":
        return _delete(adapter, Ref.Kind.BRANCH, branch)
    start = read_field(read_object(request), "startingPoint", str, MAIN)
    return _create(adapter, caller, Ref.Kind.BRANCH, branch, start)


@hub_view("POST", "DELETE")
def change_tag(request: HttpRequest, caller: Caller, owner: str, name: str) -> HttpResponseBase:
    """Make a tag at the revision in the address; or delete the tag in the address."""
    adapter = find_own_adapter(request, caller, owner, name)
    place = read_place(request, skip=5).revision
    if request.method == "DELETE":
        return _delete(adapter, Ref.Kind.TAG, place)
    body = read_object(request)
    tag = read_field(body, "tag", str, "")
    message = read_field(body, "message", str, "")
    if not is_storable(message):
        raise BadRequest("The message holds characters that cannot be stored.")
    return _create(adapter, caller, Ref.Kind.TAG, tag, place or MAIN, message=message)


def _create(
    adapter: Adapter, caller: Caller, kind: str, name: str, start: str, *, message: str = ""
) -> HttpResponseBase:
    check_ref_name(name)
    revision = find_revision(adapter, caller, start)
    try:
        services.create_ref(adapter, kind, name, revision, message=message)
    except services.RefTaken as error:
        raise Conflict(str(error)) from None
    except services.PublishError as error:
        raise BadRequest(str(error)) from None
    return JsonResponse({"success": True})


def _delete(adapter: Adapter, kind: str, name: str) -> HttpResponseBase:
    if name == MAIN:
        raise NotAllowed("The branch main cannot be deleted; delete the repository instead.")
    if not is_storable(name) or not services.delete_ref(adapter, kind, name):
        raise RevisionNotFound(name)
    return JsonResponse({"success": True})
