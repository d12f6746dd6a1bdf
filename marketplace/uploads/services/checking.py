"""Have a draft's files inspected and keep the outcome."""

from __future__ import annotations

import json
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from composer.errors import Problem
from marketplace.accounts.models import User
from marketplace.catalogue.front_matter import FrontMatterError, read_readme
from marketplace.catalogue.models import BaseModel
from marketplace.catalogue.services import CardFields
from marketplace.catalogue.validation import Outcome, validate_folder
from marketplace.request_bodies import give_back_connection
from marketplace.uploads import quarantine
from marketplace.uploads.errors import Busy, Conflict
from marketplace.uploads.models import CHECK_GRACE_SECONDS, Upload
from marketplace.uploads.quarantine import CARD
from marketplace.uploads.readme import suggest_name, suggest_summary
from marketplace.uploads.services.drafts import (
    CARD_FIELDS,
    CHANGEABLE,
    update_draft_card,
)

State = Upload.State


def validate_upload(upload: Upload, *, base_model: BaseModel | None = None) -> Upload:
    """Have the files inspected and store the outcome; the draft is kept whatever it is.

    Raises:
        Conflict: a check of the owner's is running, a file is incomplete, or it is published.
    """
    _claim(upload)
    chosen = base_model or (upload.base_model if upload.base_chosen else None)
    outcome = Outcome()
    try:
        give_back_connection()
        outcome = validate_folder(quarantine.folder_of(upload.pk), base_model=chosen)
        readme = _read_readme(upload)
        if isinstance(readme, Problem):
            outcome = outcome.refused(readme)
    finally:
        _store_outcome(upload, outcome, base_chosen=chosen is not None)
    if isinstance(readme, CardFields):
        _fill_card(upload, readme)
    return upload


def _claim(upload: Upload) -> None:
    """Move to VALIDATING, as the only draft of its owner."""
    patience = timedelta(seconds=settings.VALIDATION_SECONDS + CHECK_GRACE_SECONDS)
    with transaction.atomic():
        User.objects.select_for_update(no_key=True).get(pk=upload.owner_id)
        Upload.objects.select_for_update().get(pk=upload.pk)
        drafts = Upload.objects.owned_by(upload.owner).filter(state=State.VALIDATING)
        # A check that a restart of the site cut off does not stand in the way for ever.
        drafts.untouched_since(timezone.now() - patience).update(state=State.RECEIVING)
        if drafts.exists():
            raise Busy("Another upload of yours is being checked. Try again in a moment.")
        incomplete = list(upload.files.filter(complete=False).values_list("path", flat=True))
        if incomplete:
            raise Conflict(f"{', '.join(incomplete)} has not arrived completely. Send it again.")
        if not upload.move(frm=CHANGEABLE, to=State.VALIDATING):
            raise Conflict("This upload is published already.")


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


def _read_readme(upload: Upload) -> CardFields | Problem | None:
    """Read the card that came with the files; None where none did."""
    path = quarantine.folder_of(upload.pk) / CARD
    if not path.is_file():
        return None
    try:
        return read_readme(path.read_bytes().decode("utf-8"))
    except UnicodeDecodeError as error:
        return Problem(CARD, "", f"Byte {error.start} is not UTF-8.", "Save the file as UTF-8.")
    except FrontMatterError as error:
        return Problem(CARD, "front matter", str(error))


def _fill_card(upload: Upload, readme: CardFields) -> None:
    """Fill the fields of the card that are still empty."""
    said = {**vars(readme), "name": suggest_name(readme.card or "")}
    said["summary"] = readme.summary or suggest_summary(readme.card or "")
    found = {
        name: said[name] for name in CARD_FIELDS if said.get(name) and not getattr(upload, name)
    }
    samples = found.pop("samples", None)
    if samples:
        found["samples"] = "\n".join(
            json.dumps({"input": row.input, "output": row.output}) for row in samples
        )
    if found:
        update_draft_card(upload, found)
