"""Where a request comes from, for everything that counts by address."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest


def client_address(request: HttpRequest) -> str:
    """Return the internet address of the client.

    X-Forwarded-For is believed only as far as TRUSTED_PROXIES stand in front of us; what a client
    wrote into it itself is to the left of that.
    """
    proxies = settings.TRUSTED_PROXIES
    chain = [part.strip() for part in request.headers.get("X-Forwarded-For", "").split(",")]
    if proxies and any(chain):
        return chain[-min(proxies, len(chain))]
    return str(request.META.get("REMOTE_ADDR", ""))
