"""Names the app for Django."""

from __future__ import annotations

from django.apps import AppConfig


class BlobsConfig(AppConfig):
    """The blobs app."""

    name = "marketplace.blobs"
    label = "blobs"
