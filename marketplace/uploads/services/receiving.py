"""Take files into quarantine under the owner's quota.

The owner's row is locked while room is reserved, so that parallel uploads together stay below the
quota; nothing is locked while the bytes come in.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from django.conf import settings
from django.db import transaction

from marketplace.accounts.models import User
from marketplace.catalogue.services import read_used_bytes
from marketplace.request_bodies import give_back_connection
from marketplace.uploads import quarantine
from marketplace.uploads.errors import Conflict, NoRoom, TooLarge, UploadError, WrongHash
from marketplace.uploads.models import Upload, UploadedFile
from marketplace.uploads.services.drafts import reopen

DISCARDED = "The draft was discarded while the file came in."


@dataclass(frozen=True)
class Announced:
    """What a request says of the file it sends; all of it is checked."""

    size: int | None = None  # of the whole file
    offset: int = 0  # where the bytes of this request begin
    sha256: str = ""  # of the whole file


def receive_file(
    upload: Upload, path: str, chunks: Iterable[bytes], announced: Announced
) -> UploadedFile:
    """Take a file's bytes into quarantine and return its row.

    The file is complete when the request ends and, where a size was told, that many bytes are
    there. An earlier check of the draft is void from here on.

    Raises:
        UploadError: the name, the size, the hash, the quota or the draft's state do not allow it.
    """
    name = quarantine.check_name(path)
    with quarantine.only_writer(upload.pk, name):
        row = _reserve(upload, name, announced)
        give_back_connection()
        try:
            _take(upload, row, chunks, announced)
        except (TooLarge, NoRoom, WrongHash):
            row.delete()
            raise
        except BaseException:
            # The client broke off: what is there counts, and it can go on from there.
            _note_part(row)
            raise
    return row


def remove_file(upload: Upload, path: str) -> None:
    """Take a file out of the draft.

    Raises:
        Conflict: it is just being sent or checked, or the draft is published.
    """
    name = quarantine.check_name(path)
    with quarantine.only_writer(upload.pk, name):
        with transaction.atomic():
            Upload.objects.select_for_update().get(pk=upload.pk)
            upload.files.filter(path=name).delete()
            reopen(upload)
        quarantine.remove(upload.pk, name)


def _reserve(upload: Upload, name: str, announced: Announced) -> UploadedFile:
    """Make or renew the file's row and keep room for it under the owner's quota."""
    limit = quarantine.limit_of(name)
    if announced.size is not None and announced.size > limit:
        raise TooLarge(_above_limit(name, announced.size, limit), field="files")
    with transaction.atomic():
        User.objects.select_for_update(no_key=True).get(pk=upload.owner_id)
        if not Upload.objects.select_for_update().filter(pk=upload.pk).exists():
            raise Conflict(DISCARDED)
        others = upload.files.exclude(path=name)
        if others.count() >= settings.MAX_FILES_PER_REVISION:
            raise UploadError(
                f"An adapter has at most {settings.MAX_FILES_PER_REVISION} files.", field="files"
            )
        room = min(_room_in_upload(others, announced.size), _room_in_quota(upload, name, announced))
        reopen(upload)
        row, _ = UploadedFile.objects.update_or_create(
            upload=upload,
            path=name,
            defaults={
                "reserved": min(limit if announced.size is None else announced.size, room),
                "complete": False,
                "sha256": "",
            },
        )
    return row


def _above_limit(name: str, size: int, limit: int) -> str:
    return f"{name} has {size:,} bytes; at most {limit:,} are allowed."


def _room_in_upload(others: Iterable[UploadedFile], wanted: int | None) -> int:
    room = int(settings.MAX_UPLOAD_BYTES) - sum(file.reserved for file in others)
    if room < (wanted or 0):
        raise TooLarge(
            f"An upload has at most {settings.MAX_UPLOAD_BYTES:,} bytes altogether.", field="files"
        )
    return room


def _room_in_quota(upload: Upload, name: str, announced: Announced) -> int:
    drafts = Upload.objects.owned_by(upload.owner).open().reserved_bytes()
    own = upload.files.filter(path=name).values_list("reserved", flat=True).first() or 0
    free = int(settings.USER_QUOTA_BYTES) - read_used_bytes(upload.owner) - drafts + own
    if free < (1 if announced.size is None else announced.size):
        raise TooLarge(
            f"Your space would be exceeded: {max(0, free):,} bytes are free. "
            "Delete an adapter or discard a draft.",
            field="files",
        )
    return free


def _take(upload: Upload, row: UploadedFile, chunks: Iterable[bytes], announced: Announced) -> None:
    name = row.path
    hasher = quarantine.begin(upload.pk, name, offset=announced.offset)
    quarantine.append(upload.pk, name, chunks, hasher=hasher, room=row.reserved)
    whole = announced.size is None or hasher.size == announced.size
    if whole and announced.sha256 and announced.sha256.lower() != hasher.sha256:
        quarantine.remove(upload.pk, name)
        raise WrongHash(
            f"{name} arrived with the sha256 {hasher.sha256}, not the one announced. "
            "Send it again.",
            field="files",
        )
    row.received = hasher.size
    if whole:
        try:
            quarantine.complete(upload.pk, name)
        except FileNotFoundError:
            raise Conflict(DISCARDED) from None
        row.reserved, row.sha256, row.complete = hasher.size, hasher.sha256, True
    _keep(row)


def _note_part(row: UploadedFile) -> None:
    row.received = row.reserved = quarantine.size_of_part(row.upload_id, row.path)
    _keep(row)


def _keep(row: UploadedFile) -> None:
    """Update the row where there is one: nothing holds the draft while its bytes come in."""
    fields = {name: getattr(row, name) for name in ("received", "reserved", "sha256", "complete")}
    if not UploadedFile.objects.filter(pk=row.pk).update(**fields):
        quarantine.remove_all(row.upload_id)
        raise Conflict(DISCARDED)
