"""Who calls, and what they may see: the first step of every hub request.

Only `Authorization: Bearer` counts; cookies are never looked at, so these routes need no CSRF
protection. On public reads an unknown token counts as anonymous, since clients send whatever token
their user has for another hub; wherever identity matters it is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps

from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest, HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

from marketplace.accounts.authentication import find_token, read_bearer
from marketplace.accounts.models import ApiToken, User
from marketplace.hub.errors import BadToken, HubError, NotAllowed, WrongMethod

READS = ("GET", "HEAD")
View = Callable[..., HttpResponseBase]


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


def identify(request: HttpRequest) -> Caller:
    """Tell who calls, by the bearer token alone."""
    text = read_bearer(request.headers.get("Authorization", ""))
    token = find_token(text) if text else None
    return Caller(
        user=token.user if token else AnonymousUser(),
        token=token,
        sent_unknown_token=bool(text) and token is None,
    )


def hub_view(*methods: str) -> Callable[[View], View]:
    """Make `view(request, caller, ...)` a view of the wire: its errors are told in headers.

    A token that is not known here costs nobody a public read; the client is told, and warns.
    """

    def decorate(view: View) -> View:
        @csrf_exempt
        @wraps(view)
        def answer(request: HttpRequest, **place: str) -> HttpResponseBase:
            response: HttpResponseBase
            caller = None
            try:
                if request.method not in methods:
                    raise WrongMethod(methods)
                caller = identify(request)
                response = view(request, caller, **place)
            except HubError as error:
                response = error.to_response()
            if caller and caller.sent_unknown_token:
                response["X-HF-Warning"] = "auth; token not recognised"
            return response

        return answer

    return decorate
