"""The forms of imports and exports: what a user types; the services check it.

The hubs to choose from are those of the settings. A token is never written back into a form.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django import forms

from marketplace.accounts.names import MAX_NAME_LENGTH
from marketplace.catalogue.models import Adapter, BaseModel
from marketplace.uploads.errors import UploadError
from marketplace.uploads.hub_hosts import DEFAULT_REVISION, MAX_REVISION, list_hubs

PLAIN = {"autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}


class _HubForm(forms.Form):
    """A repository on one of the hubs that this site talks to."""

    repo_id = forms.CharField(label="Repository", max_length=500)
    hub = forms.ChoiceField(required=False)
    token = forms.CharField(
        required=False, widget=forms.PasswordInput(attrs=PLAIN | {"autocomplete": "off"})
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        hub: Any = self.fields["hub"]
        hub.choices = [(address, address.partition("://")[2]) for address in list_hubs()]

    def add_problems(self, error: UploadError) -> None:
        """Show what a service refused beside the fields."""
        for name, texts in error.problems.items():
            for text in texts:
                self.add_error(name if name in self.fields else None, text)


class ImportForm(_HubForm):
    """What to fetch, and what it is called here."""

    revision = forms.CharField(
        required=False,
        max_length=MAX_REVISION,
        help_text="A branch, a tag or a commit.",
        widget=forms.TextInput(attrs=PLAIN | {"placeholder": DEFAULT_REVISION}),
    )
    name = forms.CharField(
        label="Its name here",
        required=False,
        max_length=MAX_NAME_LENGTH,
        help_text="Left empty, it keeps the repository's. A name of yours gets a new version.",
        widget=forms.TextInput(attrs=PLAIN),
    )
    visibility = forms.ChoiceField(
        required=False,
        choices=[("", "as it is; a new one is private"), *Adapter.Visibility.choices],
    )
    base_model = forms.ModelChoiceField(
        queryset=BaseModel.objects.none(),
        required=False,
        to_field_name="name",
        empty_label="the one its configuration names",
    )
    field_order = ("repo_id", "hub", "revision", "name", "visibility", "base_model", "token")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        bases: Any = self.fields["base_model"]
        bases.queryset = BaseModel.objects.ready()
        repo, token = self.fields["repo_id"], self.fields["token"]
        repo.help_text = "owner/name, or the address of its page."
        repo.widget.attrs |= PLAIN | {"placeholder": "owner/name"}
        token.help_text = (
            "Only for private and gated repositories: your token of that hub. It goes to that hub "
            "alone, is used once and is not kept."
        )


class ExportForm(_HubForm):
    """Where to push a version, under which name."""

    revision = forms.ChoiceField(label="Version")
    private = forms.BooleanField(
        required=False, initial=True, label="Make it private there, if it is new"
    )
    field_order = ("revision", "hub", "repo_id", "token", "private")

    def __init__(self, *args: Any, labels: Iterable[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        version: Any = self.fields["revision"]
        version.choices = [(label, label) for label in labels]
        repo, token = self.fields["repo_id"], self.fields["token"]
        repo.help_text = "owner/name as it shall be called there. It is made where it is missing."
        repo.widget.attrs |= PLAIN | {"placeholder": "owner/name"}
        token.required = True
        token.help_text = "Your token of that hub that may write. Used once and not kept."
