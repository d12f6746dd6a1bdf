"""Every write of drafts: receive files, have them checked, publish, discard.

A draft survives a refusal, a reload and a restart of the site. Its owner's row is locked while room
is reserved, so that parallel uploads together stay below the quota.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from composer.errors import InvalidExamples
from composer.examples import Example, parse_examples
from marketplace.accounts.models import User
from marketplace.blobs.services import StorageFull, store_bytes, store_file
from marketplace.catalogue.front_matter import FrontMatterError, read_readme
from marketplace.catalogue.models import Adapter, BaseModel, Revision
from marketplace.catalogue.services import (
    CardFields,
    NewRevision,
    PublishError,
    publish_revision,
    read_used_bytes,
)
from marketplace.uploads import quarantine
from marketplace.uploads.errors import Conflict, NoRoom, TooLarge, UploadError
from marketplace.uploads.models import Upload, UploadedFile
from marketplace.uploads.quarantine import CARD, CONFIG, PICKLE, WEIGHTS
from marketplace.uploads.validation import Outcome, validate_folder

State = Upload.State
CHANGEABLE = frozenset({State.RECEIVING, State.REFUSED, State.READY})
MAX_OPEN_DRAFTS = 20
CARD_FIELDS = (
    "name", "summary", "card", "licence", "task", "language", "prompt_format", "training_data",
    "tags", "samples", "visibility",
)  # fmt: skip


def create_upload(owner: User, **fields: Any) -> Upload:
    """Begin a draft.

    Raises:
        Conflict: the owner has too many unfinished ones.
    """
    if Upload.objects.owned_by(owner).open().count() >= MAX_OPEN_DRAFTS:
        raise Conflict(
            f"You have {MAX_OPEN_DRAFTS} unfinished uploads. Publish or discard one first."
        )
    return Upload.objects.create(owner=owner, **fields)


def receive_file(
    upload: Upload,
    path: str,
    chunks: Iterable[bytes],
    *,
    size: int | None,
    offset: int = 0,
) -> UploadedFile:
    """Take a file's bytes into quarantine, from `offset` on; `size` is its whole length, if told.

    The file is complete when the request ends without an error and, where a size was told, that
    many bytes are there. Checks of the draft start anew.

    Raises:
        UploadError: the name, the size, the quota or the state of the draft do not allow it.
    """
    name = quarantine.check_name(path)
    row = _reserve(upload, name, size)

    def is_current() -> bool:
        return UploadedFile.objects.filter(pk=row.pk, fence=row.fence).exists()

    room = min(quarantine.limit_of(name), row.reserved)
    try:
        received = quarantine.receive(
            upload.pk, name, _checked(chunks, is_current), offset=offset, room=room,
            is_current=lambda: True,
        )  # fmt: skip
    except (TooLarge, NoRoom):
        row.delete()
        raise
    whole = size is None or received.size == size
    if whole:
        quarantine.complete(upload.pk, name)
    UploadedFile.objects.filter(pk=row.pk, fence=row.fence).update(
        received=received.size,
        reserved=received.size if whole else row.reserved,
        sha256=received.sha256 if whole else "",
        complete=whole,
    )
    row.refresh_from_db()
    return row


def remove_file(upload: Upload, path: str) -> None:
    """Take a file out of the draft. Raises Conflict while it is checked or published."""
    name = quarantine.check_name(path)
    _open_again(upload)
    upload.files.filter(path=name).delete()
    quarantine.remove(upload.pk, name)


def validate_upload(upload: Upload, *, base_model: BaseModel | None = None) -> Upload:
    """Have the files inspected and store the outcome; the draft is kept whatever it is.

    Raises:
        Conflict: a check is running, a file is incomplete, or the draft is published.
    """
    if upload.check_is_stale:
        upload.move(frm=State.VALIDATING, to=State.RECEIVING)
    incomplete = list(upload.files.filter(complete=False).values_list("path", flat=True))
    if incomplete:
        raise Conflict(f"{', '.join(incomplete)} has not arrived completely. Send it again.")
    if not upload.move(frm=CHANGEABLE, to=State.VALIDATING):
        raise Conflict("This upload is being checked already, or it is published.")
    chosen = base_model or (upload.base_model if upload.base_chosen else None)
    outcome = Outcome()
    try:
        outcome = validate_folder(quarantine.folder_of(upload.pk), base_model=chosen)
    finally:
        _store_outcome(upload, outcome, base_chosen=chosen is not None)
    _read_card(upload)
    return upload


def publish_upload(
    upload: Upload, *, base_loss: float | None = None, adapter_loss: float | None = None
) -> Revision:
    """Put the checked files on the shelf under the draft's name, with its card.

    Raises:
        UploadError: the files are not accepted yet, or the shelf refuses the card; by field.
        NoRoom: the storage is full.
    """
    if upload.state == State.PUBLISHED and upload.revision:
        return upload.revision
    summary = upload.adapter_summary
    if upload.state != State.READY or summary is None or upload.base_model is None:
        raise Conflict("Only an upload whose files were accepted can be published.")
    try:
        files = _store(upload)
        revision = publish_revision(
            NewRevision(
                owner=upload.owner,
                name=upload.name.strip(),
                files=files,
                summary=summary,
                base_model=upload.base_model,
                title=f"Upload {', '.join(sorted(files))}"[:200],
                origin=Revision.Origin.UPLOAD,
                card=_card_of(upload),
                base_loss=base_loss,
                adapter_loss=adapter_loss,
            )
        )
    except PublishError as error:
        raise UploadError(error.problems) from error
    except StorageFull as error:
        raise NoRoom(str(error)) from error
    upload.move(frm=State.READY, to=State.PUBLISHED, revision=revision)
    upload.files.all().delete()
    quarantine.remove_all(upload.pk)
    return revision


def update_draft_card(upload: Upload, fields: Mapping[str, Any]) -> Upload:
    """Keep what is typed into the card, whether or not it could be published as it is."""
    if not upload.is_open:
        raise Conflict("This upload is published. Edit the card on the adapter's page.")
    for name in CARD_FIELDS:
        if name in fields:
            setattr(upload, name, fields[name])
    upload.save(update_fields=[*(name for name in CARD_FIELDS if name in fields), "updated_at"])
    return upload


def discard_upload(upload: Upload) -> None:
    """Delete the draft and its files."""
    upload.delete()
    quarantine.remove_all(upload.pk)


def remove_stale_uploads() -> int:
    """Delete drafts that nobody touched for the time of retention, and folders without a draft."""
    limit = timezone.now() - timedelta(hours=settings.UPLOAD_RETENTION_HOURS)
    stale = Upload.objects.open().untouched_since(limit)
    count = 0
    for upload in stale:
        discard_upload(upload)
        count += 1
    root = Path(settings.QUARANTINE_DIR)
    for folder in root.iterdir() if root.is_dir() else ():
        if (
            _is_old(folder, limit.timestamp())
            and not Upload.objects.filter(pk=folder.name).exists()
        ):
            quarantine.remove_all(uuid.UUID(folder.name))
    return count


def _reserve(upload: Upload, name: str, size: int | None) -> UploadedFile:
    """Make or renew the file's row and keep room for it under the owner's quota."""
    limit = quarantine.limit_of(name)
    if size is not None and size > limit:
        raise TooLarge({"files": [f"{name} has {size:,} bytes; at most {limit:,} are allowed."]})
    wanted = limit if size is None else size
    with transaction.atomic():
        User.objects.select_for_update(no_key=True).get(pk=upload.owner_id)
        _open_again(upload)
        others = upload.files.exclude(path=name)
        if others.count() >= settings.MAX_FILES_PER_REVISION:
            raise UploadError(
                {"files": [f"An adapter has at most {settings.MAX_FILES_PER_REVISION} files."]}
            )
        in_draft = sum(others.values_list("reserved", flat=True))
        if in_draft + wanted > settings.MAX_UPLOAD_BYTES and size is not None:
            allowed = settings.MAX_UPLOAD_BYTES
            raise TooLarge({"files": [f"An upload has at most {allowed:,} bytes altogether."]})
        drafts = Upload.objects.owned_by(upload.owner).open()
        held = drafts.reserved_bytes() - sum(
            upload.files.filter(path=name).values_list("reserved", flat=True)
        )
        free = settings.USER_QUOTA_BYTES - read_used_bytes(upload.owner) - held
        if wanted > free and (size is not None or free <= 0):
            raise TooLarge(
                {
                    "files": [
                        (
                            f"Your space would be exceeded: {max(0, free):,} bytes are free. "
                            "Delete an adapter or discard a draft."
                        )
                    ]
                }
            )
        row, _ = UploadedFile.objects.update_or_create(
            upload=upload,
            path=name,
            defaults={
                "reserved": min(wanted, free),
                "fence": uuid.uuid4(),
                "complete": False,
                "sha256": "",
            },
        )
    return row


def _open_again(upload: Upload) -> None:
    """A changed file makes an earlier check void."""
    moved = upload.move(
        frm=CHANGEABLE, to=State.RECEIVING, problems=[], summary_json=None, fitting_bases=[]
    )
    if not moved:
        raise Conflict("The files cannot be changed while they are checked or once published.")


def _checked(chunks: Iterable[bytes], is_current: Any) -> Iterable[bytes]:
    """Ask every 16 MiB whether a newer request has taken the file over."""
    since = 0
    for chunk in chunks:
        since += len(chunk)
        if since > 16 * 1024 * 1024:
            since = 0
            if not is_current():
                raise Conflict("Another request sends this file; this one was stopped.")
        yield chunk


def _store_outcome(upload: Upload, outcome: Outcome, *, base_chosen: bool) -> None:
    accepted = outcome.summary is not None
    nothing = not accepted and not outcome.problems
    upload.move(
        frm=State.VALIDATING,
        # Without any outcome the check itself broke: the draft is as before.
        to=State.RECEIVING if nothing else State.READY if accepted else State.REFUSED,
        summary_json=outcome.summary.to_dict() if outcome.summary else None,
        problems=[problem.to_dict() for problem in outcome.problems],
        base_model=outcome.base_model,
        base_chosen=base_chosen,
        fitting_bases=list(outcome.fitting_bases),
        checked_at=timezone.now(),
    )


def _read_card(upload: Upload) -> None:
    """Fill empty fields of the card from the README that came with the files."""
    path = quarantine.folder_of(upload.pk) / CARD
    if not path.is_file() or path.stat().st_size > quarantine.SMALL_BYTES:
        return
    try:
        fields = read_readme(path.read_text(encoding="utf-8", errors="replace"))
    except FrontMatterError:
        return
    found = {
        name: value
        for name in CARD_FIELDS
        if (value := getattr(fields, name, None)) and not getattr(upload, name, None)
    }
    samples = found.pop("samples", None)
    if samples:
        found["samples"] = "\n".join(
            json.dumps({"input": row.input, "output": row.output}) for row in samples
        )
    if found:
        update_draft_card(upload, {k: list(v) if k == "tags" else v for k, v in found.items()})


def _store(upload: Upload) -> dict[str, Any]:
    folder = quarantine.folder_of(upload.pk)
    config = (upload.summary_json or {})["config"]
    names = [row.path for row in upload.files.all() if row.path not in {CONFIG, PICKLE}]
    files = {name: store_file(folder / name) for name in {*names, WEIGHTS}}
    # The configuration is the one rebuilt from allowed keys, never the file that was sent.
    files[CONFIG] = store_bytes(f"{json.dumps(config, indent=2, sort_keys=True)}\n".encode())
    return files


def _card_of(upload: Upload) -> CardFields:
    return CardFields(
        summary=upload.summary,
        card=upload.card,
        licence=upload.licence,
        task=upload.task,
        language=upload.language,
        prompt_format=upload.prompt_format,
        training_data=upload.training_data,
        tags=upload.tags,
        samples=_read_samples(upload.samples),
        visibility=upload.visibility or Adapter.Visibility.PUBLIC,
    )


def _read_samples(text: str) -> Sequence[Example]:
    if not text.strip():
        return ()
    try:
        return parse_examples(text)
    except InvalidExamples as error:
        raise UploadError({"samples": [str(problem) for problem in error.problems]}) from error


def _is_old(folder: Path, limit: float) -> bool:
    try:
        uuid.UUID(folder.name)
        return folder.stat().st_mtime < limit
    except (ValueError, OSError):
        return False
