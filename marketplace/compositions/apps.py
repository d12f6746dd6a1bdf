"""Names the app for Django."""

from __future__ import annotations

from django.apps import AppConfig


class CompositionsConfig(AppConfig):
    """The compositions app."""

    name = "marketplace.compositions"
    label = "compositions"
