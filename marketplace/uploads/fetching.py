"""Fetch an adapter from another hub into a draft, have it checked like any upload, and publish it.

The draft is the memory: what lies in its quarantine is not fetched again, so a job that lost its
worker or its connection goes on from there. The commit is pinned by the first answer of the hub.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from django.conf import settings
from django.db import transaction

from marketplace.blobs.hashing import hash_file
from marketplace.catalogue.models import Adapter, Revision
from marketplace.uploads import quarantine
from marketplace.uploads.errors import Busy, UploadError
from marketplace.uploads.holding import Hold
from marketplace.uploads.hub_reader import HubFailure, HubReader, RemoteFile, RemoteRevision
from marketplace.uploads.hub_rules import rules_for
from marketplace.uploads.models import Import, Transfer, Upload, UploadedFile
from marketplace.uploads.quarantine import CARD, CONFIG, PICKLE, WEIGHTS
from marketplace.uploads.sealing import unseal
from marketplace.uploads.services.checking import validate_upload
from marketplace.uploads.services.drafts import create_upload
from marketplace.uploads.services.publishing import publish_upload
from marketplace.uploads.services.receiving import Announced, receive_file
from marketplace.uploads.services.transfers import forget_draft

TRIES = 5  # without a single byte between them
PAUSE_SECONDS = 0.5  # before the second try; doubled each time
BUSY_TRIES = 30


def do_import(job: Import, hold: Hold) -> None:
    """Do it, from wherever an earlier attempt has come to.

    Raises:
        HubFailure: the other hub does not give it.
        UploadError: the shelf does not take it; the draft stays for its owner.
    """
    token = unseal(job.sealed_token, job.pk)
    hold.report(phase="looking", bytes_done=0, bytes_total=None)
    with HubReader(
        rules_for(job.hub), job.repo_id, token=token, seconds=settings.TRANSFER_SECONDS
    ) as reader:
        remote = _again(lambda: reader.read_revision(job.commit or job.asked_revision))
        known = find_imported(job, remote.commit)
        if known is not None:
            hold.end(Transfer.State.SUCCEEDED, revision=known, commit=remote.commit)
            forget_draft(job)
            return
        files = choose_files(job, remote)
        upload = _open_draft(job, hold, remote)
        total = sum(file.size for file in files)
        hold.report(phase="fetching", commit=remote.commit, bytes_total=total)
        _Fetcher(reader, hold, upload, remote.commit).fetch(files)
    revision = _check_and_publish(job, hold, upload)
    hold.end(Transfer.State.SUCCEEDED, revision=revision, bytes_done=total)


def find_imported(job: Import, commit: str) -> Revision | None:
    """The revision that an earlier import of the same commit under the same name made."""
    found = Revision.objects.on_shelf().filter(
        adapter__owner=job.owner,
        adapter__name__iexact=job.name,
        adapter__deleted_at__isnull=True,
        origin=Revision.Origin.IMPORT,
        provenance__source=job.place,
        provenance__revision=commit,
    )
    return found.order_by("-id").first()


def choose_files(job: Import, remote: RemoteRevision) -> list[RemoteFile]:
    """Pick what makes an adapter out of a repository's files, small ones first.

    Raises:
        HubFailure: it holds none.
    """
    there = {file.path: file for file in remote.files}
    weights = there.get(WEIGHTS) or there.get(PICKLE)
    if CONFIG not in there or weights is None:
        shown = ", ".join(sorted(there)[:8]) or "nothing that can be fetched"
        raise HubFailure(
            "no_adapter",
            f"{job.place} holds no LoRA adapter: {CONFIG} and {WEIGHTS} (or {PICKLE}) are "
            f"needed at its top. It holds {shown[:300]}.",
            "Name the repository of an adapter that was saved with peft's save_pretrained.",
        )
    for file in (there[CONFIG], weights):
        if file.size > quarantine.limit_of(file.path):
            raise HubFailure(
                "too_large",
                f"{file.path} has {file.size:,} bytes; at most "
                f"{quarantine.limit_of(file.path):,} are allowed here.",
                "Save it in float16, or ask the administrator for a higher limit.",
            )
    wanted = [there[CONFIG], *([there[CARD]] if CARD in there else [])]
    rest = [file for path, file in sorted(there.items()) if _is_small_companion(path, file)]
    wanted += rest[: settings.MAX_FILES_PER_REVISION - 3]
    return [*(file for file in wanted if file.size <= quarantine.SMALL_BYTES), weights]


class _Fetcher:
    """Brings files into a draft and counts their bytes together."""

    def __init__(self, reader: HubReader, hold: Hold, upload: Upload, commit: str) -> None:
        self._reader = reader
        self._hold = hold
        self._upload = upload
        self._commit = commit
        self._before = 0  # bytes of the files that are complete

    def fetch(self, files: Iterable[RemoteFile]) -> None:
        for file in files:
            pause, tries, have = PAUSE_SECONDS, TRIES, -1
            while not self._is_there(file):
                part = quarantine.size_of_part(self._upload.pk, file.path)
                tries = TRIES if part > have else tries - 1
                have = part
                failure = self._fetch_part(file, have)
                if failure is not None and (tries <= 1 or not failure.is_passing):
                    raise failure
                time.sleep(max(failure.wait, pause) if failure else 0)
                pause *= 2 if failure else 1
            self._before += file.size
            self._hold.report_bytes(self._before)

    def _is_there(self, file: RemoteFile) -> bool:
        row = self._row(file)
        return bool(row and row.complete)

    def _row(self, file: RemoteFile) -> UploadedFile | None:
        return self._upload.files.filter(path=file.path).first()

    def _fetch_part(self, file: RemoteFile, have: int) -> HubFailure | None:
        """Fetch from where the file ends here; return why it broke off, None where it did not."""
        offset = have if have < file.size else 0
        try:
            with self._reader.open_file(self._commit, file, offset=offset) as (start, chunks):
                announced = Announced(size=file.size, offset=start, sha256=file.sha256)
                counted = self._counted(chunks, start)
                row = receive_file(self._upload, file.path, counted, announced)
        except HubFailure as failure:
            return failure
        if not row.complete:
            return HubFailure(
                "connection",
                f"The hub broke off {file.path} after {row.received:,} of {file.size:,} bytes.",
                "Retry: it goes on from there.",
                is_passing=True,
            )
        self._check_hash(file)
        return None

    def _counted(self, chunks: Iterable[bytes], start: int) -> Iterator[bytes]:
        done = self._before + start
        for chunk in chunks:
            yield chunk
            done += len(chunk)
            self._hold.report_bytes(done)

    def _check_hash(self, file: RemoteFile) -> None:
        """Compare a small file with the hash in the listing; LFS files are compared on the way."""
        if not file.git_sha1:
            return
        found = hash_file(quarantine.folder_of(self._upload.pk) / file.path)
        if found.git_sha1 != file.git_sha1:
            raise HubFailure(
                "changed",
                f"{file.path} is not the file that the hub listed.",
                "Retry; if it happens again, tell the people who run that hub.",
            )


def _is_small_companion(path: str, file: RemoteFile) -> bool:
    if path in {CONFIG, CARD, WEIGHTS, PICKLE} or file.size > quarantine.SMALL_BYTES:
        return False
    try:
        return "\\" not in path and quarantine.check_name(path) == path
    except UploadError:
        return False


def _again(ask: Any) -> Any:
    """Ask; where the cause may pass, a few times more."""
    pause = PAUSE_SECONDS
    for _ in range(TRIES - 1):
        try:
            return ask()
        except HubFailure as failure:
            if not failure.is_passing:
                raise
            time.sleep(max(failure.wait, pause))
            pause *= 2
    return ask()


def _open_draft(job: Import, hold: Hold, remote: RemoteRevision) -> Upload:
    """Return the draft of an earlier attempt at the same commit, or a new one."""
    upload = Upload.objects.open().filter(imported_by=job.pk).first()
    if upload is not None and job.commit == remote.commit:
        return upload
    forget_draft(job)
    with transaction.atomic():
        upload = create_upload(
            job.owner,
            name=job.name,
            visibility=job.visibility or _visibility_of(job),
            base_model=job.base_model,
            base_chosen=job.base_model is not None,
        )
        hold.report(upload=upload, commit=remote.commit)
    job.upload, job.commit = upload, remote.commit
    return upload


def _visibility_of(job: Import) -> str:
    """What the adapter has; a new one is private until its owner thinks otherwise."""
    adapter = Adapter.objects.owned_by(job.owner).filter(name__iexact=job.name).first()
    return adapter.visibility if adapter else Adapter.Visibility.PRIVATE


def _check_and_publish(job: Import, hold: Hold, upload: Upload) -> Revision:
    files = dict(upload.files.values_list("path", "sha256"))
    provenance: dict[str, Any] = {
        "source": job.place,
        "revision": job.commit,
        "asked": job.asked_revision,
        "files": files,
    }
    hold.report(phase="checking", provenance=provenance)
    _validate(upload)
    if upload.state == Upload.State.REFUSED:
        raise HubFailure(
            "refused",
            "The files are not accepted: " + " ".join(map(str, upload.found_problems)),
            "The draft keeps them: choose another base model there or replace what is wrong.",
        )
    hold.report(phase="publishing")
    try:
        return publish_upload(upload)
    except UploadError as error:
        raise HubFailure(
            "card",
            f"The files are accepted, the card is not: {error}",
            "Mend it in the draft and publish it there.",
        ) from error


def _validate(upload: Upload) -> None:
    """Have the draft checked, when no other draft of its owner is."""
    for _ in range(BUSY_TRIES):
        try:
            validate_upload(upload)
        except Busy as busy:
            time.sleep(busy.retry_after)
        else:
            return
    validate_upload(upload)
