"""Drafts as a whole: begin one, keep what is typed into its card, open it again, discard it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from marketplace.accounts.models import User
from marketplace.uploads import quarantine
from marketplace.uploads.errors import Conflict
from marketplace.uploads.models import Upload

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
    with transaction.atomic():
        User.objects.select_for_update(no_key=True).get(pk=owner.pk)
        if Upload.objects.owned_by(owner).open().count() >= MAX_OPEN_DRAFTS:
            raise Conflict(
                f"You have {MAX_OPEN_DRAFTS} unfinished uploads. Publish or discard one first."
            )
        return Upload.objects.create(owner=owner, **fields)


def update_draft_card(upload: Upload, fields: Mapping[str, Any]) -> Upload:
    """Keep what is typed into the card, whether or not it could be published as it is.

    Raises:
        Conflict: the draft is published.
    """
    if not upload.is_open:
        raise Conflict("This upload is published. Edit the card on the adapter's page.")
    kept = {name: _fit(name, fields[name]) for name in CARD_FIELDS if name in fields}
    for name, value in kept.items():
        setattr(upload, name, value)
    upload.save(update_fields=[*kept, "updated_at"])
    return upload


def reopen(upload: Upload) -> None:
    """Make an earlier check void, because a file changes. The caller holds the draft's row locked.

    Raises:
        Conflict: a check is running, or the draft is published.
    """
    moved = upload.move(
        frm=CHANGEABLE, to=State.RECEIVING, problems=[], summary_json=None, fitting_bases=[]
    )
    if not moved:
        raise Conflict("The files cannot be changed while they are checked or once published.")
    if not upload.files.filter(path=quarantine.WEIGHTS).exists():
        # What lies there without having been sent is the conversion of an earlier .bin.
        quarantine.remove(upload.pk, quarantine.WEIGHTS)


def discard_upload(upload: Upload) -> None:
    """Delete the draft and its files."""
    draft = upload.pk
    upload.delete()
    quarantine.remove_all(draft)


def remove_stale_uploads() -> int:
    """Delete drafts that nobody touched for the time of retention, and folders without a draft."""
    limit = timezone.now() - timedelta(hours=settings.UPLOAD_RETENTION_HOURS)
    count = 0
    for upload in Upload.objects.open().untouched_since(limit):
        discard_upload(upload)
        count += 1
    root = Path(settings.QUARANTINE_DIR)
    for folder in root.iterdir() if root.is_dir() else ():
        draft = _read_id(folder.name)
        if (
            draft
            and folder.stat().st_mtime < limit.timestamp()
            and not Upload.objects.open().filter(pk=draft).exists()
        ):
            quarantine.remove_all(draft)
    return count


def _fit(name: str, value: Any) -> Any:
    """Make a typed text storable; what is wrong with it is told when the card is checked."""
    if not isinstance(value, str):
        return value
    text = value.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")
    limit = getattr(Upload._meta.get_field(name), "max_length", None)
    return text[:limit] if limit else text[: settings.MAX_CARD_BYTES]


def _read_id(name: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(name)
    except ValueError:
        return None
