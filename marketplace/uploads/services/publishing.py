"""Put a draft whose files were accepted on the shelf."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from composer.errors import InvalidExamples
from composer.examples import Example, parse_examples
from marketplace.accounts.models import User
from marketplace.blobs.models import Blob
from marketplace.blobs.services import DamagedBlob, StorageFull, store_bytes, store_file
from marketplace.catalogue.models import Revision
from marketplace.catalogue.services import CardFields, NewRevision, PublishError, publish_revision
from marketplace.uploads import quarantine
from marketplace.uploads.errors import Conflict, NoRoom, UploadError
from marketplace.uploads.models import Import, Upload
from marketplace.uploads.quarantine import CARD, CONFIG, PICKLE, WEIGHTS
from marketplace.uploads.readme import write_readme

State = Upload.State
NOT_ACCEPTED = "Only an upload whose files were accepted can be published. Have them checked first."


def publish_upload(
    upload: Upload, *, base_loss: float | None = None, adapter_loss: float | None = None
) -> Revision:
    """Put the checked files on the shelf under the draft's name, with its card.

    A name of the owner's that is on the shelf already gets a new version.

    Raises:
        UploadError: the files are not accepted yet, or the shelf refuses the card; by field.
        NoRoom: the storage is full.
    """
    upload.refresh_from_db()
    if upload.state == State.PUBLISHED and upload.revision:
        return upload.revision
    if upload.state != State.READY:
        raise Conflict(NOT_ACCEPTED)
    samples = _read_samples(upload.samples)
    files = _store(upload)
    with transaction.atomic():
        # Owner first, as everywhere: the shelf locks the owner as well.
        User.objects.select_for_update(no_key=True).get(pk=upload.owner_id)
        locked = Upload.objects.select_for_update().get(pk=upload.pk)
        if locked.state == State.PUBLISHED and locked.revision:
            upload.refresh_from_db()
            return locked.revision
        if locked.state != State.READY or locked.checked_at != upload.checked_at:
            raise Conflict("The files were changed while they were being published. Look again.")
        revision = _publish(locked, files, samples, (base_loss, adapter_loss))
        upload.move(frm=State.READY, to=State.PUBLISHED, revision=revision)
        upload.files.all().delete()
    quarantine.remove_all(upload.pk)
    return revision


def _store(upload: Upload) -> dict[str, Blob]:
    """Store what goes on the shelf: the checked weights, the rebuilt configuration, the card."""
    summary = upload.adapter_summary
    if summary is None:
        raise Conflict(NOT_ACCEPTED)
    folder = quarantine.folder_of(upload.pk)
    hashes: Mapping[str, str] = {
        **dict(upload.files.exclude(path__in=(CONFIG, PICKLE, CARD)).values_list("path", "sha256")),
        WEIGHTS: summary.weights_sha256,
    }
    # The configuration is the one rebuilt from allowed keys, never the file that was sent.
    config = json.dumps(summary.config, indent=2, sort_keys=True)
    readme = folder / CARD
    try:
        card = write_readme(upload, readme.read_text("utf-8") if readme.is_file() else "")
        return {
            **{name: store_file(folder / name, sha256=sha256) for name, sha256 in hashes.items()},
            CONFIG: store_bytes(f"{config}\n".encode()),
            CARD: store_bytes(card.encode()),
        }
    except StorageFull as error:
        raise NoRoom(str(error)) from error
    except (DamagedBlob, FileNotFoundError) as error:
        raise Conflict(
            "The checked files are not there any more. Send them again; the card is kept."
        ) from error


def _publish(
    upload: Upload,
    files: Mapping[str, Blob],
    samples: Sequence[Example],
    losses: tuple[float | None, float | None],
) -> Revision:
    summary, base_model = upload.adapter_summary, upload.base_model
    if summary is None or base_model is None:
        raise Conflict(NOT_ACCEPTED)
    fields: dict[str, Any] = {
        name: getattr(upload, name)
        for name in ("summary", "card", "licence", "task", "language", "prompt_format",
                     "training_data", "tags", "visibility")
    }  # fmt: skip
    origin = _origin_of(upload)
    try:
        return publish_revision(
            NewRevision(
                owner=upload.owner,
                name=upload.name.strip(),
                files=files,
                summary=summary,
                base_model=base_model,
                title=origin.title,
                origin=origin.kind,
                provenance=origin.provenance,
                card=CardFields(**fields, samples=samples),
                base_loss=losses[0],
                adapter_loss=losses[1],
            )
        )
    except PublishError as error:
        raise UploadError(error.problems) from error


@dataclass(frozen=True)
class _Origin:
    """Where the files of a draft come from."""

    title: str
    kind: str
    provenance: Mapping[str, Any]


def _origin_of(upload: Upload) -> _Origin:
    """Tell an import, as long as all files are still the ones that were fetched."""
    job = Import.objects.filter(upload=upload).first()
    files = dict(upload.files.values_list("path", "sha256"))
    if job is None or job.provenance.get("files") != files:
        return _Origin("Upload", Revision.Origin.UPLOAD, {})
    title = f"Import of {job.repo_id} at {job.commit[:8]}"
    return _Origin(title, Revision.Origin.IMPORT, job.provenance)


def _read_samples(text: str) -> Sequence[Example]:
    if not text.strip():
        return ()
    try:
        return parse_examples(text)
    except InvalidExamples as error:
        raise UploadError({"samples": [str(problem) for problem in error.problems]}) from error
