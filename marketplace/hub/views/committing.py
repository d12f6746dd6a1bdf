"""The two steps of a push that every client takes: ask how to send the files, then commit."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase, JsonResponse

from composer.pickle_reader import PICKLE_NAME
from composer.safetensors_header import WEIGHTS_NAME
from marketplace.accounts.limits import HOUR, Limit
from marketplace.accounts.models import User
from marketplace.blobs.services import StorageFull
from marketplace.catalogue import services
from marketplace.catalogue.models import Adapter, Ref, Revision
from marketplace.hub.access import Caller, hub_view
from marketplace.hub.addresses import check_path, commit_url, is_storable, read_place
from marketplace.hub.bodies import read_field, read_object
from marketplace.hub.errors import BadRequest, NoRoom, RevisionNotFound, TooMany
from marketplace.hub.finding import find_own_adapter
from marketplace.hub.lfs_rule import LARGE_BYTES
from marketplace.hub.parameters import is_true
from marketplace.hub.services.checking import find_forbidden, is_leftover, is_whole
from marketplace.hub.services.committing import apply_commit
from marketplace.hub.services.objects import read_room
from marketplace.hub.services.operations import read_commit
from marketplace.request_bodies import BodyError, give_back_connection, read_chunks

MAX_FILES = 1000
_OVERHEAD = 64 * 1024


@hub_view("POST")
def preupload(request: HttpRequest, caller: Caller, owner: str, name: str) -> HttpResponseBase:
    """Tell how each file is to be sent, and what is at its path already; refuse what cannot be."""
    adapter = find_own_adapter(request, caller, owner, name)
    _refuse_pull_request(request)
    head = _find_branch(adapter, read_place(request, skip=5).revision)
    files = _read_announced(read_object(request))
    wanted = {path: size for path, size in files.items() if not is_leftover(path)}
    there = {file.path: file.blob for file in head.files.select_related("blob")}
    problems = _find_problems(wanted, there, caller.require_writer())
    if problems:
        raise BadRequest(" | ".join(problems), problems=problems)
    answers = []
    for path, size in files.items():
        mode = "lfs" if size > LARGE_BYTES else "regular"
        answer = {"path": path, "uploadMode": mode, "shouldIgnore": path not in wanted}
        if path in there:
            blob = there[path]
            answer["oid"] = blob.sha256 if mode == "lfs" else blob.git_sha1
        answers.append(answer)
    return JsonResponse({"files": answers})


@hub_view("POST")
def commit(request: HttpRequest, caller: Caller, owner: str, name: str) -> HttpResponseBase:
    """Put a commit on a branch; a whole adapter is validated before anybody else sees it."""
    adapter = find_own_adapter(request, caller, owner, name)
    user = caller.require_writer()
    _refuse_pull_request(request)
    branch = read_place(request, skip=5).revision
    _find_branch(adapter, branch)
    limit = Limit("hub-commit", settings.HUB_COMMITS_PER_HOUR, HOUR)
    if not limit.use(str(user.pk)):
        raise TooMany(f"At most {limit.times} commits an hour.", seconds=HOUR // 4)
    try:
        told = read_commit(_bounded(request), user, room=read_room(user))
        revision = apply_commit(adapter, branch, told, by=user)
    except BodyError:
        raise BadRequest("The commit did not arrive whole. Send it again.") from None
    except StorageFull as error:
        raise NoRoom(str(error)) from None
    answer = {
        "success": True,
        "commitOid": revision.oid,
        "commitUrl": commit_url(adapter.full_name, revision.oid),
        "hookOutput": "",
    }
    return JsonResponse(answer)


def _refuse_pull_request(request: HttpRequest) -> None:
    if is_true(request.GET, "create_pr"):
        raise BadRequest(
            "This site has no pull requests. Push to a branch of the repository, or to a "
            "repository of your own."
        )


def _find_branch(adapter: Adapter, branch: str) -> Revision:
    head = services.read_head(adapter, branch) if is_storable(branch) else None
    if head is not None:
        return head
    known = is_storable(branch) and (
        adapter.refs.filter(name=branch, kind=Ref.Kind.TAG).exists()
        or adapter.revisions.filter(oid=branch).exists()
    )
    if known:
        raise BadRequest(f"“{branch}” is no branch, and only branches take commits.")
    raise RevisionNotFound(branch)


def _read_announced(body: dict[str, Any]) -> dict[str, int]:
    announced = read_field(body, "files", list, [])
    if len(announced) > MAX_FILES:
        raise BadRequest(f"At most {MAX_FILES} files at once.")
    files = {}
    for entry in announced:
        if not isinstance(entry, dict):
            raise BadRequest("Every entry of “files” has to be an object.")
        size = read_field(entry, "size", int, 0)
        if size < 0:
            raise BadRequest("“size” cannot be negative.")
        files[check_path(read_field(entry, "path", str, ""))] = size
    return files


def _find_problems(wanted: dict[str, int], there: dict[str, Any], user: User) -> list[str]:
    largest = int(settings.MAX_WEIGHTS_BYTES)
    problems = [
        f"{path} has {size:,} bytes; at most {largest:,} are allowed. "
        + (
            "Save in float16, or train with a smaller rank or fewer modules."
            if path in {WEIGHTS_NAME, PICKLE_NAME}
            else "Leave it out."
        )
        for path, size in wanted.items()
        if size > largest
    ]
    if is_whole([*wanted, *there]):
        problems += find_forbidden(wanted)
    free, total = read_room(user), sum(wanted.values())
    known = sum(blob.size for path, blob in there.items() if path in wanted)
    if total - known > free:
        problems.append(
            f"Your space would be exceeded: {free:,} bytes are free, and these files have "
            f"{total:,}. Delete an adapter first."
        )
    return problems


def _bounded(request: HttpRequest) -> Any:
    """Yield the body up to what a commit may have: base64 takes four bytes for three."""
    room = int(settings.MAX_UPLOAD_BYTES) * 4 // 3 + _OVERHEAD
    for chunk in read_chunks(request):
        room -= len(chunk)
        if room < 0:
            raise BadRequest(
                f"A commit may bring at most {settings.MAX_UPLOAD_BYTES:,} bytes. Make several."
            )
        yield chunk
        give_back_connection()  # the next piece may be long in coming
