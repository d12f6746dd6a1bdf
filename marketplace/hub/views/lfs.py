"""Git LFS: clients say what they want to send, and send it to addresses signed for just that."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse

from marketplace.accounts.models import User
from marketplace.blobs.services import StorageFull
from marketplace.hub.access import Caller, hub_view
from marketplace.hub.addresses import repo_url
from marketplace.hub.bodies import read_field, read_object
from marketplace.hub.errors import BadRequest, EntryNotFound, HubError, NoRoom
from marketplace.hub.finding import find_own_adapter
from marketplace.hub.services.objects import SHA256, check_room, find_object
from marketplace.hub.services.receiving import (
    PART_BYTES,
    count_parts,
    join_parts,
    receive_part,
    receive_whole,
)
from marketplace.hub.services.signing import LfsPermit, read_lfs, sign
from marketplace.request_bodies import BodyError, give_back_connection, read_chunks

MEDIA_TYPE = "application/vnd.git-lfs+json"
MAX_OBJECTS = 1000


@hub_view("POST")
def batch(request: HttpRequest, caller: Caller, owner: str, name: str) -> HttpResponseBase:
    """Give for each object the addresses to send it to, nothing where it is here, or the reason."""
    adapter = find_own_adapter(request, caller, owner, name)
    user = caller.require_writer()
    body = read_object(request)
    if body.get("operation") != "upload":
        raise BadRequest("Large files are downloaded by /resolve/; only uploads come this way.")
    objects = read_field(body, "objects", list, [])
    if len(objects) > MAX_OBJECTS:
        raise BadRequest(f"At most {MAX_OBJECTS} objects at once.")
    transfers = read_field(body, "transfers", list, ["basic"])
    token = caller.token.pk if caller.token else 0
    wanted = [_read_wanted(entry) for entry in objects]
    in_parts = "multipart" in transfers and any(size > PART_BYTES for _, size in wanted)
    answers = [
        _answer(user, token, oid, size, in_parts=in_parts, verify=repo_url(adapter.full_name))
        for oid, size in wanted
    ]
    transfer = "multipart" if in_parts else "basic"
    return JsonResponse(
        {"transfer": transfer, "objects": answers, "hash_algo": "sha256"}, content_type=MEDIA_TYPE
    )


@hub_view("POST")
def verify(request: HttpRequest, caller: Caller, owner: str, name: str) -> HttpResponseBase:
    """Say whether an object has arrived."""
    find_own_adapter(request, caller, owner, name)
    oid, size = _read_wanted(read_object(request))
    blob = find_object(caller.require_writer(), oid)
    if blob is None or blob.size != size:
        raise EntryNotFound("This object has not arrived.")
    return JsonResponse({"oid": oid, "size": size}, content_type=MEDIA_TYPE)


@hub_view("PUT", "POST")
def receive(request: HttpRequest, caller: Caller, permit: str) -> HttpResponseBase:
    """Take a file or a part of one (PUT), or put its parts together (POST)."""
    allowed, user = read_lfs(permit)
    response = HttpResponse()
    give_back_connection()
    try:
        if request.method == "POST":
            if not allowed.parts or allowed.part:
                raise BadRequest("This address is for the content itself.")
            join_parts(user, allowed)
        elif allowed.part:
            response["ETag"] = f'"{receive_part(user, allowed, read_chunks(request))}"'
        elif allowed.parts:
            raise BadRequest("This address is for the end of an upload in parts.")
        else:
            receive_whole(user, allowed, read_chunks(request))
    except BodyError:
        raise BadRequest("The content did not arrive whole. Send it again.") from None
    except StorageFull as error:
        raise NoRoom(str(error)) from None
    return response


def _read_wanted(entry: Any) -> tuple[str, int]:
    if not isinstance(entry, dict):
        raise BadRequest("Every object has to have an oid and a size.")
    oid, size = read_field(entry, "oid", str, ""), read_field(entry, "size", int, -1)
    if not SHA256.match(oid) or size < 0:
        raise BadRequest("An object needs a sha256 as its oid, and its size.")
    return oid, size


def _answer(
    user: User, token: int, oid: str, size: int, *, in_parts: bool, verify: str
) -> dict[str, Any]:
    answer: dict[str, Any] = {"oid": oid, "size": size, "authenticated": True}
    blob = find_object(user, oid)
    if blob is not None and blob.size == size:
        return answer
    try:
        _check_size(user, size)
    except HubError as error:
        return {**answer, "error": {"code": 422, "message": error.message}}
    permit = LfsPermit(token=token, oid=oid, size=size, parts=count_parts(size) if in_parts else 0)
    upload: dict[str, Any] = {"href": _address(permit), "header": {}}
    if in_parts:
        upload["header"] = {"chunk_size": str(PART_BYTES)} | {
            str(number): _address(LfsPermit(token, oid, size, number, permit.parts))
            for number in range(1, permit.parts + 1)
        }
    href = f"{verify}.git/info/lfs/objects/verify"
    answer["actions"] = {"upload": upload, "verify": {"href": href, "header": {}}}
    return answer


def _check_size(user: User, size: int) -> None:
    largest = int(settings.MAX_WEIGHTS_BYTES)
    if size > largest:
        raise BadRequest(f"The file has {size:,} bytes; at most {largest:,} are allowed.")
    check_room(user, size)


def _address(permit: LfsPermit) -> str:
    return f"{settings.PUBLIC_URL}/_lfs/{sign(permit)}"
