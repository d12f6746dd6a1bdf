"""Who calls, and what they may see: the first step of every hub request.

Only `Authorization: Bearer` counts; cookies are never looked at, so these routes need no CSRF
protection. On public reads an unknown token counts as anonymous, since clients send whatever token
their user has for another hub; wherever identity matters it is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib.auth.models import AnonymousUser

from marketplace.accounts.models import ApiToken, User
from marketplace.hub.errors import BadToken, NotAllowed


@dataclass(frozen=True)
class Caller:
    """The user behind a request, and whether the token may write."""

    user: User | AnonymousUser
    token: ApiToken | None
    sent_unknown_token: bool

    @property
    def is_known(self) -> bool:
        """Whether a valid token came with the request."""
        return self.token is not None

    def require_user(self) -> User:
        """Return the user; raise BadToken for a request without a valid token."""
        if not isinstance(self.user, User):
            raise BadToken
        return self.user

    def require_writer(self) -> User:
        """Return the user, whose token must have the scope to write."""
        user = self.require_user()
        if self.token is None or self.token.scope != ApiToken.Scope.WRITE:
            raise NotAllowed(
                "This token may only read. Make one with the scope “read and write” "
                "under Settings, Tokens."
            )
        return user
