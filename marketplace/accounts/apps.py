"""Names the app for Django, and registers the project's start-up checks."""

from __future__ import annotations

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    """The accounts app."""

    name = "marketplace.accounts"
    label = "accounts"

    def ready(self) -> None:
        """Importing the checks registers them."""
        from marketplace import checks  # noqa: F401, PLC0415
