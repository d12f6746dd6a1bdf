"""Large files by their sha256: who may name one, and how one that was received is kept."""

from __future__ import annotations

import re
from pathlib import Path

from marketplace.accounts.models import User
from marketplace.blobs.models import Blob
from marketplace.blobs.services import store_file
from marketplace.catalogue.models import Revision, RevisionFile
from marketplace.hub.models import SentObject

SHA256 = re.compile(r"[0-9a-f]{64}\Z")


def find_object(user: User, oid: object) -> Blob | None:
    """Return the content with this sha256, if the user sent it or may read it in a revision.

    For any other the answer is the same as for content that is not here at all.
    """
    if not isinstance(oid, str) or not SHA256.match(oid):
        return None
    blob = Blob.objects.filter(pk=oid).first()
    if blob is None or SentObject.objects.filter(user=user, blob=blob).exists():
        return blob
    readable = Revision.objects.readable_files_by(user)
    uses = RevisionFile.objects.filter(blob=blob, revision__in=readable)
    return blob if uses.exists() else None


def keep_object(user: User, file: Path, *, sha256: str, size: int) -> Blob:
    """Store a received file and note that this user sent it; the file itself stays where it is.

    Raises:
        DamagedBlob: it is not the content that was announced.
        StorageFull: there is no room.
    """
    blob = store_file(file, sha256=sha256, size=size)
    SentObject.objects.update_or_create(user=user, blob=blob)
    return blob
