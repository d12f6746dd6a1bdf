"""Names the app for Django."""

from __future__ import annotations

from django.apps import AppConfig


class LiveConfig(AppConfig):
    """The live app."""

    name = "marketplace.live"
    label = "live"
