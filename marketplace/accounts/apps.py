"""Names the app for Django."""

from __future__ import annotations

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    """The accounts app."""

    name = "marketplace.accounts"
    label = "accounts"
