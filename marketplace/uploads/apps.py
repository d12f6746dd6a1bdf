"""Names the app for Django."""

from __future__ import annotations

from django.apps import AppConfig


class UploadsConfig(AppConfig):
    """The uploads app."""

    name = "marketplace.uploads"
    label = "uploads"
