"""How a request proves who it is: a bearer token for programs, the session for the site's pages.

Only the `Authorization: Bearer` header carries a token, never an address, a cookie or a form. Where
the header is present, cookies are ignored: a page can lend no session to a program's request.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from django.utils import timezone
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from marketplace.accounts.models import TOKEN_PREFIX, ApiToken, User

_TOKEN = re.compile(rf"{TOKEN_PREFIX}_([0-9a-f]{{12}})_([A-Za-z0-9-]{{20,64}})\Z")
_LAST_USED_STEP = timedelta(minutes=1)  # one write a minute, not one a request
_BAD_TOKEN = (
    "This token is unknown, expired or revoked. Make a new one under Settings, Tokens, "  # noqa: S105
    "and send it as “Authorization: Bearer …”."
)
# Compared with where no token is found, so that a wrong key takes as long as a wrong secret.
_DECOY = ApiToken(secret_hash="0" * 64, expires_at=timezone.now() + timedelta(days=36500))


def read_bearer(header: str) -> str | None:
    """Return the token text of an Authorization header, or None for another scheme."""
    scheme, _, text = header.partition(" ")
    return text.strip() if scheme.lower() == "bearer" else None


def find_token(text: str) -> ApiToken | None:
    """Return the valid token with this text, its user active, and note that it was used."""
    match = _TOKEN.match(text[:200])
    key, secret = match.groups() if match else ("", "")
    token = ApiToken.objects.select_related("user").filter(key=key).first() or _DECOY
    if not token.matches(secret) or token.pk is None or not token.user.is_active:
        return None
    now = timezone.now()
    if token.last_used_at is None or token.last_used_at < now - _LAST_USED_STEP:
        ApiToken.objects.filter(pk=token.pk).update(last_used_at=now)
    return token


class BearerAuthentication(BaseAuthentication):
    """`Authorization: Bearer lm_…`; `request.auth` is the ApiToken."""

    def authenticate(self, request: Request) -> tuple[User, ApiToken] | None:
        """Return user and token, None without the header; raise for a token that is not valid."""
        text = read_bearer(request.headers.get("Authorization", ""))
        if text is None:
            return None
        token = find_token(text)
        if token is None:
            raise AuthenticationFailed(_BAD_TOKEN)
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        """Make a missing identity a 401 and not a 403."""
        return "Bearer"


class BrowserAuthentication(SessionAuthentication):
    """The session of the site's own pages, with CSRF; ignored beside an Authorization header."""

    def authenticate(self, request: Request) -> tuple[Any, None] | None:
        """Return the signed-in user, if there is one."""
        if request.headers.get("Authorization"):
            return None
        return super().authenticate(request)
