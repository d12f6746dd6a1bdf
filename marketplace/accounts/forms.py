"""The forms of accounts; their rules are the models' and `names`, their writes `services`."""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms
from django.contrib.auth.forms import AuthenticationForm, BaseUserCreationForm

from marketplace.accounts.models import ApiToken, User
from marketplace.accounts.services import DEFAULT_DAYS, MAX_DAYS, NAME_TAKEN

DAYS = [(7, "7 days"), (30, "30 days"), (DEFAULT_DAYS, "90 days"), (MAX_DAYS, "1 year")]


class SignUpForm(BaseUserCreationForm[User]):
    """A name and a password; the e-mail address is only for a forgotten password."""

    class Meta:
        model = User
        fields = ("username", "email")
        widgets: ClassVar = {
            "username": forms.TextInput(
                attrs={"autocomplete": "username", "autocapitalize": "none", "spellcheck": "false"}
            ),
            "email": forms.EmailInput(attrs={"autocomplete": "email"}),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["email"].help_text = "Only used when you forget your password."

    def clean_username(self) -> str:
        """Refuse a name that differs from a taken one only in case."""
        name: str = self.cleaned_data["username"]
        if User.objects.filter(username__iexact=name).exists():
            raise forms.ValidationError(NAME_TAKEN)
        return name


class SignInForm(AuthenticationForm):
    """Name and password; the case of the name does not matter, since no two differ in it only."""

    def clean_username(self) -> str:
        """Return the name as its owner wrote it at sign-up."""
        name: str = self.cleaned_data["username"]
        stored = User.objects.filter(username__iexact=name).values_list("username", flat=True)
        # Unknown names are lowered: “Ann” and “ann” are one to whoever counts wrong passwords.
        return stored.first() or name.lower()


class ResetForm(forms.Form):
    """The address that a link for a new password is sent to."""

    email = forms.EmailField(
        label="E-mail address",
        max_length=254,
        widget=forms.EmailInput(attrs={"autocomplete": "email"}),
    )


class SettingsForm(forms.ModelForm[User]):
    """What others see of a user, and where mail goes."""

    class Meta:
        model = User
        fields = ("email", "bio")
        labels: ClassVar = {"bio": "About you"}
        help_texts: ClassVar = {
            "email": "Only used when you forget your password; nobody else sees it.",
            "bio": "Shown on your page; at most 300 characters.",
        }
        widgets: ClassVar = {
            "bio": forms.Textarea(attrs={"rows": 3}),
            "email": forms.EmailInput(attrs={"autocomplete": "email"}),
        }


class TokenForm(forms.Form):
    """A new API token: what it is for, what it may do, how long it lives."""

    name = forms.CharField(max_length=60, help_text="Where you will use it, such as “laptop”.")
    scope = forms.ChoiceField(
        label="May", choices=ApiToken.Scope.choices, initial=ApiToken.Scope.READ
    )
    days = forms.TypedChoiceField(label="Valid for", choices=DAYS, coerce=int, initial=DEFAULT_DAYS)


def add_problems(form: forms.BaseForm, problems: dict[str, list[str]]) -> None:
    """Show a service's problems at the fields they belong to."""
    for name, texts in problems.items():
        for text in texts:
            form.add_error(name if name in form.fields else None, text)
