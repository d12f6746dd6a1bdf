"""Names the app for Django."""

from __future__ import annotations

from django.apps import AppConfig


class HubConfig(AppConfig):
    """The wire: the hub's protocol over the shelf's revisions."""

    name = "marketplace.hub"
    label = "hub"
