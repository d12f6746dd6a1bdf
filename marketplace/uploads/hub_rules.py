"""The settings' lists of hubs as rules for one job's connections."""

from __future__ import annotations

from django.conf import settings

from marketplace.uploads.guarded_transport import Rules


def rules_for(hub: str) -> Rules:
    """The places that may be reached on the way to a hub of the settings."""
    return Rules(
        hub=hub,
        file_hosts=tuple(settings.HUB_FILE_HOSTS),
        internal=tuple(settings.INTERNAL_HUBS),
    )
