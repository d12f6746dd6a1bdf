"""Xet, as far as newer clients need it to send large files; nothing is ever sent out this way."""

from __future__ import annotations

import time

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase, JsonResponse

from marketplace.accounts.authentication import read_bearer
from marketplace.accounts.models import User
from marketplace.blobs.services import StorageFull
from marketplace.hub.access import Caller, hub_view
from marketplace.hub.errors import BadRequest, BadToken, EntryNotFound, NoRoom
from marketplace.hub.finding import find_own_adapter
from marketplace.hub.models import XetSpace
from marketplace.hub.services.signing import XET_SECONDS, XetPermit, read_xet, sign
from marketplace.hub.services.xet import MAX_SHARD_BYTES, open_space, take_shard, take_xorb
from marketplace.request_bodies import BodyError, give_back_connection, read_chunks


@hub_view("GET")
def give_token(request: HttpRequest, caller: Caller, owner: str, name: str) -> HttpResponseBase:
    """Give a permit for the user's space, which is the client's own address for a while."""
    find_own_adapter(request, caller, owner, name)
    space = open_space(caller.require_writer())
    permit = XetPermit(caller.token.pk if caller.token else 0, space.pk, space.generation)
    address = f"{settings.PUBLIC_URL}/_cas/{space.pk}-{space.generation}"
    text, ends = sign(permit), int(time.time()) + XET_SECONDS
    response = JsonResponse({"casUrl": address, "accessToken": text, "exp": ends})
    response["X-Xet-Cas-Url"] = address
    response["X-Xet-Access-Token"] = text
    response["X-Xet-Token-Expiration"] = str(ends)
    response["Cache-Control"] = "no-store"
    return response


@hub_view("GET", "HEAD", "POST")
def absent(request: HttpRequest, caller: Caller, place: str) -> HttpResponseBase:
    """Say that there is no such chunk, or no such newer way: clients then take the older one."""
    _enter(request, place)
    raise EntryNotFound("Not found")


@hub_view("POST")
def take_one_xorb(request: HttpRequest, caller: Caller, place: str, xorb: str) -> HttpResponseBase:
    """Keep a xorb for its sender."""
    _, space = _enter(request, place)
    give_back_connection()
    try:
        is_new = take_xorb(space, xorb, read_chunks(request))
    except BodyError:
        raise BadRequest("The xorb did not arrive whole. Send it again.") from None
    return JsonResponse({"was_inserted": is_new})


@hub_view("POST")
def take_one_shard(request: HttpRequest, caller: Caller, place: str) -> HttpResponseBase:
    """Put the files of a shard together from xorbs that were sent before."""
    user, space = _enter(request, place)
    data = bytearray()
    give_back_connection()
    try:
        for chunk in read_chunks(request):
            data += chunk
            if len(data) > MAX_SHARD_BYTES:
                raise BadRequest(f"A shard has at most {MAX_SHARD_BYTES} bytes.")
        take_shard(user, space, bytes(data))
    except BodyError:
        raise BadRequest("The shard did not arrive whole. Send it again.") from None
    except StorageFull as error:
        raise NoRoom(str(error)) from None
    return JsonResponse({"result": 1})


def _enter(request: HttpRequest, place: str) -> tuple[User, XetSpace]:
    """Return the sender and their space, if the permit is for this address and it is current."""
    permit, user = read_xet(read_bearer(request.headers.get("Authorization", "")) or "")
    if place != f"{permit.space}-{permit.generation}":
        raise BadToken
    space = XetSpace.objects.filter(
        pk=permit.space, user=user, generation=permit.generation
    ).first()
    if space is None:
        raise BadToken
    return user, space
