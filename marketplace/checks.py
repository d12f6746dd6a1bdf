"""Start-up checks: a deployment that would hurt later says so at once, with an id and a remedy.

Django's own `check --deploy` covers the general web settings; these cover what only we know.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

SHORT_SECRET = 50


@register(deploy=True)
def check_secret(**_: Any) -> list[CheckMessage]:
    """marketplace.E001: production needs a secret of its own."""
    secret = settings.SECRET_KEY
    if len(secret) >= SHORT_SECRET and not secret.startswith("development-only-"):
        return []
    return [
        Error(
            "SECRET_KEY is short or the one for development.",
            hint="Set SECRET_KEY to 50 or more random characters and keep it between restarts.",
            id="marketplace.E001",
        )
    ]


@register(deploy=True)
def check_public_url(**_: Any) -> list[CheckMessage]:
    """marketplace.W001: hub clients and mails use PUBLIC_URL, so it must be the real address."""
    if settings.PUBLIC_URL.startswith("https://"):
        return []
    return [
        Warning(
            f"PUBLIC_URL is {settings.PUBLIC_URL}: passwords and tokens travel in clear.",
            hint="Put the site behind TLS and set PUBLIC_URL=https://your.host (docs/settings.md).",
            id="marketplace.W001",
        )
    ]


@register()
def check_lease(**_: Any) -> list[CheckMessage]:
    """marketplace.E002: a lease must outlive several heartbeats, or healthy jobs are taken away."""
    if settings.JOB_LEASE_SECONDS >= 3 * settings.JOB_HEARTBEAT_SECONDS:
        return []
    return [
        Error(
            f"JOB_LEASE_SECONDS={settings.JOB_LEASE_SECONDS} is less than three heartbeats "
            f"(JOB_HEARTBEAT_SECONDS={settings.JOB_HEARTBEAT_SECONDS}).",
            hint="Raise JOB_LEASE_SECONDS or lower JOB_HEARTBEAT_SECONDS.",
            id="marketplace.E002",
        )
    ]
