"""The forms of sign-up, settings and tokens; their rules are the models' and `names`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar

from django import forms
from django.contrib.auth.forms import BaseUserCreationForm
from django.utils import timezone

from marketplace.accounts.models import ApiToken, User

MAX_TOKENS = 20
DEFAULT_DAYS = 90
MAX_DAYS = 365
DAYS = [(7, "7 days"), (30, "30 days"), (DEFAULT_DAYS, "90 days"), (MAX_DAYS, "1 year")]


class SignUpForm(BaseUserCreationForm[User]):
    """A name and a password; the e-mail address is only for a forgotten password."""

    class Meta:
        model = User
        fields = ("username", "email")
        widgets: ClassVar = {"username": forms.TextInput(attrs={"autocomplete": "username"})}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["email"].help_text = "Only used when you forget your password."

    def clean_username(self) -> str:
        """Refuse a name that differs from a taken one only in case."""
        name: str = self.cleaned_data["username"]
        if User.objects.filter(username__iexact=name).exists():
            raise forms.ValidationError("This name is taken. Choose another one.")
        return name


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
        widgets: ClassVar = {"bio": forms.Textarea(attrs={"rows": 3})}


class TokenForm(forms.Form):
    """A new API token: what it is for, what it may do, how long it lives."""

    name = forms.CharField(max_length=60, help_text="Where you will use it, such as “laptop”.")
    scope = forms.ChoiceField(choices=ApiToken.Scope.choices, initial=ApiToken.Scope.READ)
    days = forms.TypedChoiceField(
        label="Valid for", choices=DAYS, coerce=int, initial=DEFAULT_DAYS, empty_value=DEFAULT_DAYS
    )

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.user = user

    def clean_name(self) -> str:
        """Refuse a name that another of the user's tokens has."""
        name: str = self.cleaned_data["name"]
        if self.user.api_tokens.filter(name=name).exists():
            raise forms.ValidationError("You have a token of this name. Choose another name.")
        return name

    def clean(self) -> dict[str, Any]:
        """Refuse one token too many."""
        if self.user.api_tokens.count() >= MAX_TOKENS:
            raise forms.ValidationError(
                f"You have {MAX_TOKENS} tokens, which is the most. Revoke one first."
            )
        return self.cleaned_data

    def issue(self) -> tuple[ApiToken, str]:
        """Make the token; return it and its text, which is not kept."""
        return ApiToken.issue(
            user=self.user,
            name=self.cleaned_data["name"],
            scope=self.cleaned_data["scope"],
            expires_at=timezone.now() + timedelta(days=self.cleaned_data["days"]),
        )
