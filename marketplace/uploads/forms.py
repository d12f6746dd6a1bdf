"""The draft's card as a form; what it may hold in the end is checked when it is published."""

from __future__ import annotations

from typing import Any

from django import forms

from marketplace.accounts.names import MAX_NAME_LENGTH
from marketplace.catalogue.forms import CardForm
from marketplace.uploads.models import Upload

_KEPT_AS_TYPED = ("samples",)


class DraftForm(CardForm):
    """The card's fields and the adapter's name."""

    name = forms.CharField(
        max_length=MAX_NAME_LENGTH, help_text="The second half of its id, such as owner/name."
    )
    field_order = ("name", "summary", "task", "tags", "licence", "language", "prompt_format")

    @classmethod
    def of_draft(cls, upload: Upload) -> DraftForm:
        """The form filled with what the draft has."""
        initial: dict[str, Any] = {
            name: getattr(upload, name) for name in cls.base_fields if name != "tags"
        }
        initial["tags"] = ", ".join(upload.tags)
        return cls(initial=initial)

    def typed(self) -> dict[str, Any]:
        """Everything as it was typed, valid or not, for keeping in the draft."""
        found = {name: self.data.get(name, "") for name in self.fields if name in self.data}
        if "tags" in found:
            found["tags"] = [tag.strip() for tag in found["tags"].split(",") if tag.strip()][:20]
        limits = {"name": MAX_NAME_LENGTH, "summary": 200, "licence": 200, "task": 60}
        limits |= {"training_data": 300, "language": 20, "prompt_format": 8, "visibility": 8}
        return {
            name: value[: limits[name]] if name in limits else value
            for name, value in found.items()
        }
