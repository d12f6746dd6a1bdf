"""How the API schema describes our two ways to sign in; registered by being imported."""

from __future__ import annotations

from typing import Any

from drf_spectacular.authentication import SessionScheme
from drf_spectacular.extensions import OpenApiAuthenticationExtension


class BearerScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """`Authorization: Bearer lm_…`."""

    target_class = "marketplace.accounts.authentication.BearerAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        """Return what OpenAPI calls a bearer scheme."""
        return {
            "type": "http",
            "scheme": "bearer",
            "description": "A token made under Settings, Tokens.",
        }


class BrowserScheme(SessionScheme):  # type: ignore[no-untyped-call]
    """The session cookie of the site's own pages."""

    target_class = "marketplace.accounts.authentication.BrowserAuthentication"
    name = "session"
