"""Take large files from the network to the disk, whole or in parts, and keep what is right.

Nothing of a file is ever in memory but the piece that is coming in; it is hashed on the way.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from marketplace.accounts.models import User
from marketplace.blobs.hashing import READ_BYTES, Hasher
from marketplace.hub.errors import BadRequest
from marketplace.hub.services.folders import hub_folder, working_folder
from marketplace.hub.services.objects import keep_object
from marketplace.hub.services.signing import LfsPermit

PART_BYTES = 16 * 1024 * 1024


def count_parts(size: int) -> int:
    """Return in how many parts a file of this size is sent."""
    return -(-size // PART_BYTES)


def receive(chunks: Iterable[bytes], target: Path, *, limit: int) -> Hasher:
    """Write a body to a file and return its hashes.

    Raises:
        BadRequest: it has more bytes than `limit`.
    """
    hasher = Hasher()
    with target.open("wb") as file:
        for chunk in chunks:
            hasher.update(chunk)
            if hasher.size > limit:
                raise BadRequest(f"The body has more than the {limit} bytes that were announced.")
            file.write(chunk)
    return hasher


def receive_whole(user: User, permit: LfsPermit, chunks: Iterable[bytes]) -> None:
    """Receive a file in one piece.

    Raises:
        BadRequest: it is not the content that was announced.
    """
    with working_folder() as folder:
        file = folder / "content"
        found = receive(chunks, file, limit=permit.size)
        _check(found, permit)
        keep_object(user, file, sha256=permit.oid, size=permit.size)


def receive_part(user: User, permit: LfsPermit, chunks: Iterable[bytes]) -> str:
    """Receive one part of a file and return what the client is to call it.

    Raises:
        BadRequest: it has another size than this part of the file.
    """
    begins = (permit.part - 1) * PART_BYTES
    size = min(PART_BYTES, permit.size - begins)
    folder = _folder_of_parts(user, permit)
    with working_folder() as work:
        file = work / "part"
        found = receive(chunks, file, limit=size)
        if found.size != size:
            raise BadRequest(f"Part {permit.part} has {found.size} bytes and should have {size}.")
        folder.mkdir(parents=True, exist_ok=True)
        file.replace(folder / str(permit.part))
    return found.sha256


def join_parts(user: User, permit: LfsPermit) -> None:
    """Put the parts of a file together; the parts are gone afterwards.

    Raises:
        BadRequest: some are missing, or the whole is not the content that was announced.
    """
    folder = _folder_of_parts(user, permit)
    places = [folder / str(number) for number in range(1, permit.parts + 1)]
    missing = [place.name for place in places if not place.is_file()]
    if missing:
        raise BadRequest(f"Parts are missing: {', '.join(missing)}. Send them again.")
    with working_folder() as work:
        file = work / "content"
        found = receive(_read_all(places), file, limit=permit.size)
        shutil.rmtree(folder, ignore_errors=True)
        _check(found, permit)
        keep_object(user, file, sha256=permit.oid, size=permit.size)


def _folder_of_parts(user: User, permit: LfsPermit) -> Path:
    return hub_folder("parts") / f"{user.pk}-{permit.oid}"


def _read_all(places: Iterable[Path]) -> Iterable[bytes]:
    for place in places:
        with place.open("rb") as file:
            while chunk := file.read(READ_BYTES):
                yield chunk


def _check(found: Hasher, permit: LfsPermit) -> None:
    if (found.sha256, found.size) != (permit.oid, permit.size):
        raise BadRequest(
            f"The content has {found.size} bytes and the sha256 {found.sha256}; "
            f"announced were {permit.size} bytes and {permit.oid}. Send it again."
        )
