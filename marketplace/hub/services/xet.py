"""The receiving half of Xet: xorbs are kept for their sender, shards turn them into files.

A xorb belongs to the user who sent it, and to nobody else: its name is no permission. A client
never sends a xorb again to an address that has it, so they are kept; when they are thrown away, the
user's space gets a new generation, and with it a new address.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path

from django.conf import settings
from django.db.models import F, Max, Sum
from django.utils import timezone

from marketplace.accounts.models import User
from marketplace.hub.errors import BadRequest
from marketplace.hub.models import XetSpace, Xorb
from marketplace.hub.services.folders import hub_folder, working_folder
from marketplace.hub.services.objects import check_room, keep_object
from marketplace.hub.services.receiving import receive
from marketplace.hub.xet_format import (
    MAX_XORB_BYTES,
    ShardFile,
    XetError,
    count_chunks,
    parse_shard,
    read_chunks,
)

MAX_SHARD_BYTES = 16 * 1024 * 1024
MAX_SPACE_BYTES = 2 * 1024**3
FULL_BYTES = MAX_SPACE_BYTES // 2
QUIET = timedelta(minutes=20)  # longer than a permit lasts: nobody is sending
KEPT = timedelta(hours=24)


def open_space(user: User) -> XetSpace:
    """Return the user's space; one that is half full begins a new generation, if it is quiet."""
    space, _ = XetSpace.objects.get_or_create(user=user)
    last = space.xorbs.aggregate(last=Max("created_at"))["last"]
    if last and last < timezone.now() - QUIET and _sum_sizes(space) > FULL_BYTES:
        renew(space)
    XetSpace.objects.filter(pk=space.pk).update(used_at=timezone.now())
    space.refresh_from_db()
    return space


def renew(space: XetSpace) -> bool:
    """Throw away the xorbs of a space and give it a new address; False where somebody else did."""
    old = space.generation
    renewed = XetSpace.objects.filter(pk=space.pk, generation=old).update(
        generation=F("generation") + 1
    )
    space.xorbs.filter(generation__lte=old).delete()
    shutil.rmtree(_folder_of(space.pk, old), ignore_errors=True)
    return renewed == 1


def renew_old_spaces() -> int:
    """Throw away the xorbs of everybody who has sent none for a day; return how many spaces."""
    quiet = XetSpace.objects.filter(used_at__lt=timezone.now() - KEPT, xorbs__isnull=False)
    return sum(renew(space) for space in quiet.distinct())


def take_xorb(space: XetSpace, name: str, chunks: Iterable[bytes]) -> bool:
    """Keep a xorb; return whether it is new.

    Raises:
        BadRequest: it is no xorb, or the space is full.
    """
    if _sum_sizes(space) > MAX_SPACE_BYTES:
        raise BadRequest("Your uploads take too much room at once. Try again in half an hour.")
    with working_folder() as work:
        file = work / "xorb"
        found = receive(chunks, file, limit=MAX_XORB_BYTES)
        try:
            count_chunks(file)
        except XetError as error:
            raise BadRequest(str(error)) from None
        place = _place_of(space, name)
        place.parent.mkdir(parents=True, exist_ok=True)
        file.replace(place)
    _, is_new = Xorb.objects.get_or_create(
        space=space, generation=space.generation, hash=name, defaults={"size": found.size}
    )
    XetSpace.objects.filter(pk=space.pk).update(used_at=timezone.now())
    return is_new


def take_shard(user: User, space: XetSpace, data: bytes) -> None:
    """Put together every file that a shard describes, and keep them as sent by the user.

    Raises:
        BadRequest: it is no shard, names what the user did not send, or a file is too large or not
            the one that was promised.
    """
    try:
        files = parse_shard(data)
        _check_sizes(files)
        check_room(user, sum(file.size for file in files))
        for file in files:
            _assemble(user, space, file)
    except XetError as error:
        raise BadRequest(str(error)) from None


def _check_sizes(files: Iterable[ShardFile]) -> None:
    largest = int(settings.MAX_WEIGHTS_BYTES)
    for file in files:
        if file.size > largest:
            raise XetError(f"A file has {file.size:,} bytes; at most {largest:,} are allowed.")


def _assemble(user: User, space: XetSpace, file: ShardFile) -> None:
    names = {segment.xorb for segment in file.segments}
    known = set(
        space.xorbs.filter(generation=space.generation, hash__in=names).values_list(
            "hash", flat=True
        )
    )
    if names - known:
        raise XetError(f"The xorb {min(names - known)} was not sent. Send the file again.")
    with working_folder() as work:
        target = work / "content"
        found = receive(_read(space, file), target, limit=file.size)
        if found.sha256 != file.sha256 or found.size != file.size:
            raise XetError(
                f"The file put together has the sha256 {found.sha256}, not {file.sha256}."
            )
        keep_object(user, target, sha256=found.sha256, size=found.size)


def _read(space: XetSpace, file: ShardFile) -> Iterator[bytes]:
    for segment in file.segments:
        try:
            yield from read_chunks(_place_of(space, segment.xorb), segment.first, segment.end)
        except FileNotFoundError:
            raise XetError(f"The xorb {segment.xorb} is gone. Send the file again.") from None


def _place_of(space: XetSpace, name: str) -> Path:
    return _folder_of(space.pk, space.generation) / name


def _folder_of(space: int, generation: int) -> Path:
    return hub_folder("xorbs") / f"{space}-{generation}"


def _sum_sizes(space: XetSpace) -> int:
    return int(space.xorbs.aggregate(total=Sum("size"))["total"] or 0)
