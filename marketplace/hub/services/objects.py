"""Large files by their sha256: who may name one, and how one that was received is kept."""

from __future__ import annotations

import re
from pathlib import Path

from django.conf import settings
from django.db.models import Sum
from django.utils import timezone

from marketplace.accounts.models import User
from marketplace.blobs.models import Blob
from marketplace.blobs.services import store_file
from marketplace.catalogue.models import Revision, RevisionFile
from marketplace.catalogue.services import read_used_bytes
from marketplace.hub.errors import BadRequest
from marketplace.hub.models import SentObject

SHA256 = re.compile(r"[0-9a-f]{64}\Z")


def find_object(user: User, oid: object) -> Blob | None:
    """Return the content with this sha256, if the user sent it or may read it in a revision.

    For any other the answer is the same as for content that is not here at all.
    """
    if not isinstance(oid, str) or not SHA256.match(oid):
        return None
    if not _may_name(user, oid):
        return None
    # Touched, so that it is not collected as unused before the commit has taken it.
    if not Blob.objects.filter(pk=oid).update(created_at=timezone.now()):
        return None
    return Blob.objects.get(pk=oid)


def read_room(user: User) -> int:
    """Return how many bytes the user may still send: what waits for a commit counts as well."""
    waiting = Blob.objects.filter(
        pk__in=SentObject.objects.filter(user=user).values("blob_id")
    ).exclude(uses__revision__adapter__owner=user)
    pending = int(waiting.aggregate(total=Sum("size"))["total"] or 0)
    return max(0, int(settings.USER_QUOTA_BYTES) - read_used_bytes(user) - pending)


def check_room(user: User, size: int) -> None:
    """Raise BadRequest where the user's space has no room for so many bytes more."""
    room = read_room(user)
    if size > room:
        raise BadRequest(
            f"Your space would be exceeded: {room:,} bytes are free, and this needs {size:,}. "
            "Delete an adapter first."
        )


def _may_name(user: User, oid: str) -> bool:
    if SentObject.objects.filter(user=user, blob=oid).exists():
        return True
    readable = Revision.objects.readable_files_by(user)
    return RevisionFile.objects.filter(blob=oid, revision__in=readable).exists()


def keep_object(user: User, file: Path, *, sha256: str, size: int) -> Blob:
    """Store a received file and note that this user sent it; the file itself stays where it is.

    Raises:
        DamagedBlob: it is not the content that was announced.
        StorageFull: there is no room.
    """
    blob = store_file(file, sha256=sha256, size=size)
    SentObject.objects.update_or_create(user=user, blob=blob)
    return blob
