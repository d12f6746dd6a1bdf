"""The card of a draft: the catalogue's card form with a name, kept as typed until it is right."""

from __future__ import annotations

from typing import Any

from django import forms
from django.http import QueryDict

from marketplace.accounts.names import MAX_NAME_LENGTH
from marketplace.catalogue.forms import CardForm
from marketplace.uploads.models import Upload
from marketplace.uploads.services import CARD_FIELDS


class DraftForm(CardForm):
    """Everything that is published beside the files."""

    name = forms.CharField(
        widget=forms.TextInput(attrs={"autocomplete": "off", "maxlength": MAX_NAME_LENGTH}),
        help_text="A name of yours that exists already gets a new version.",
    )
    field_order = ("name", "summary")

    @classmethod
    def of_draft(cls, upload: Upload) -> DraftForm:
        """The form filled with what was typed so far."""
        initial = {name: getattr(upload, name) for name in CARD_FIELDS}
        return cls(initial=initial | {"tags": ", ".join(upload.tags)})


def read_typed(data: QueryDict) -> dict[str, Any]:
    """Return what was typed as the draft keeps it, right or wrong."""
    typed: dict[str, Any] = {
        name: str(data[name]) for name in CARD_FIELDS if name in data and name != "tags"
    }
    for name in ("prompt_format", "visibility"):
        if typed.get(name) not in dict(CardForm.base_fields[name].choices):  # type: ignore[attr-defined]
            typed.pop(name, None)
    if "tags" in data:
        typed["tags"] = [tag.strip() for tag in str(data["tags"]).split(",") if tag.strip()][:100]
    return typed
