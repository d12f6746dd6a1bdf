"""Names the app for Django."""

from __future__ import annotations

from django.apps import AppConfig


class CatalogueConfig(AppConfig):
    """The catalogue app."""

    name = "marketplace.catalogue"
    label = "catalogue"
