"""Forms of an adapter's owner: the card, yanking, deleting.

What a card may hold is checked by `services.cards`; a form only turns typed text into `CardFields`
and brings the problems back to their fields.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from django import forms

from composer.errors import InvalidExamples
from composer.examples import Example, parse_examples
from marketplace.accounts.names import MAX_NAME_LENGTH
from marketplace.catalogue.front_matter import FrontMatterError, read_readme
from marketplace.catalogue.languages import LANGUAGES
from marketplace.catalogue.licences import LICENCES
from marketplace.catalogue.models import Adapter, PromptFormat, Sample
from marketplace.catalogue.services import CardFields, CatalogueError

ARROW = "=>"


class CardForm(forms.Form):
    """Everything an owner says of an adapter."""

    summary = forms.CharField(
        required=False, help_text="One sentence: what it does. It is shown in every list."
    )
    card = forms.CharField(
        required=False,
        strip=False,
        widget=forms.Textarea(attrs={"rows": 16, "class": "code"}),
        help_text="Markdown. Say what it is for, what it was trained on, and where it fails.",
    )
    task = forms.CharField(
        required=False, help_text="In two or three words, such as Sentence Rewriting."
    )
    tags = forms.CharField(
        required=False,
        help_text="Separated by commas.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "list": "tag-options"}),
    )
    licence = forms.CharField(
        required=False,
        help_text="An SPDX id or an expression, such as Apache-2.0 or MIT AND CC-BY-4.0.",
        widget=forms.TextInput(attrs={"list": "licence-options"}),
    )
    language = forms.ChoiceField(
        required=False, choices=[("", "not said"), *sorted(LANGUAGES.items(), key=lambda x: x[1])]
    )
    prompt_format = forms.ChoiceField(choices=PromptFormat.choices)
    training_data = forms.CharField(
        required=False, help_text="Names or links of the data it was trained on."
    )
    samples = forms.CharField(
        required=False,
        strip=False,
        widget=forms.Textarea(attrs={"rows": 5, "class": "code"}),
        help_text="Up to ten, one a line: input => output. JSON Lines works as well. "
        "People judge by them, and search by examples finds the adapter by them.",
    )
    visibility = forms.ChoiceField(
        choices=Adapter.Visibility.choices,
        widget=forms.RadioSelect,
        help_text="A private adapter exists for nobody but you.",
    )

    @classmethod
    def of(cls, adapter: Adapter) -> CardForm:
        """The form filled with what the adapter has."""
        names = [name for name in cls.base_fields if name not in {"tags", "samples"}]
        initial = {name: getattr(adapter, name) for name in names}
        initial["tags"] = ", ".join(tag.name for tag in adapter.tags.all())
        initial["samples"] = write_samples(adapter.samples.all())
        return cls(initial=initial)

    def clean_samples(self) -> tuple[Example, ...]:
        """Read the rows, with line numbers in every complaint."""
        text = self.cleaned_data["samples"]
        if not text.strip():
            return ()
        try:
            return parse_examples(text)
        except InvalidExamples as error:
            raise forms.ValidationError([str(problem) for problem in error.problems]) from None

    def clean(self) -> dict[str, Any]:
        """Take a pasted front matter apart: its fields fill what is still empty."""
        data: dict[str, Any] = self.cleaned_data
        try:
            readme = read_readme(data.get("card", ""))
        except FrontMatterError as error:
            self.add_error("card", str(error))
            return data
        data["card"] = readme.card
        for name in ("summary", "licence", "language", "task", "training_data"):
            data[name] = data.get(name) or getattr(readme, name) or ""
        data["tags"] = data.get("tags") or ", ".join(readme.tags or ())
        return data

    def card_fields(self) -> CardFields:
        """Return what was typed, ready for `services.update_card`."""
        data = self.cleaned_data
        plain = {name: data[name] for name in self.fields if name not in {"tags", "samples"}}
        tags = [tag.strip() for tag in data["tags"].split(",") if tag.strip()]
        return CardFields(**plain, tags=tags, samples=data["samples"])

    def add_problems(self, error: CatalogueError) -> None:
        """Show what the service refused beside the fields."""
        add_problems(self, error)


class YankForm(forms.Form):
    """Why a revision is taken off the shelf."""

    reason = forms.CharField(
        max_length=300,
        help_text="Whoever has this version pinned will read it.",
        widget=forms.TextInput(attrs={"placeholder": "Trained on the wrong base revision"}),
    )


class DeleteForm(forms.Form):
    """The name typed once more, so that nothing is deleted by a slip."""

    name = forms.CharField(label="Its name", widget=forms.TextInput(attrs={"autocomplete": "off"}))

    def __init__(self, *args: Any, expected: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.expected = expected
        self.fields["name"].help_text = f"Type {expected} to go on."

    def clean_name(self) -> str:
        """Compare with the adapter's full name."""
        typed: str = self.cleaned_data["name"]
        if typed != self.expected:
            raise forms.ValidationError(f"This is not {self.expected}.")
        return typed


class GateForm(forms.Form):
    """Who may download what everybody can see."""

    gated = forms.ChoiceField(
        label="Files are open to", choices=Adapter.Gate.choices, widget=forms.RadioSelect
    )


class GrantForm(forms.Form):
    """Somebody who is let in without having asked."""

    user = forms.CharField(
        label="User name",
        max_length=MAX_NAME_LENGTH,
        widget=forms.TextInput(attrs={"autocomplete": "off", "autocapitalize": "none"}),
    )


def write_samples(samples: Iterable[Sample]) -> str:
    """Write samples as `input => output` lines, or as JSON Lines where that would not read back."""
    rows = list(samples)
    if all(_is_plain(row) for row in rows):
        return "\n".join(f"{row.input} {ARROW} {row.output}" for row in rows)
    return "\n".join(
        json.dumps({"input": row.input, "output": row.output}, ensure_ascii=False) for row in rows
    )


def licence_options() -> list[tuple[str, str]]:
    """Ids and names for the field's list of suggestions."""
    return [(licence.id, licence.name) for licence in LICENCES.values()]


def add_problems(form: forms.Form, error: CatalogueError) -> None:
    """Put a service's problems beside the fields they belong to, the rest above the form."""
    for name, texts in error.problems.items():
        for text in texts:
            form.add_error(name if name in form.fields else None, text)


def _is_plain(row: Sample) -> bool:
    texts = (row.input, row.output)
    one_line = all("\n" not in text and text == text.strip() for text in texts)
    return one_line and ARROW not in row.input + row.output and row.input[:1] not in {"{", '"'}
