"""Names the app for Django, and registers the project's start-up checks and the API's schemes."""

from __future__ import annotations

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    """The accounts app."""

    name = "marketplace.accounts"
    label = "accounts"

    def ready(self) -> None:
        """Importing them registers them."""
        from marketplace import checks  # noqa: F401, PLC0415
        from marketplace.accounts import api_schema  # noqa: F401, PLC0415
