"""What a request may do, from how it proved who it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from marketplace.accounts.models import ApiToken

if TYPE_CHECKING:  # rest_framework.views imports this module while it is being imported itself
    from rest_framework.views import APIView


class ReadOrWriteScope(BasePermission):
    """Everybody may read what is public; writing takes a user, and a token that may write."""

    message = (
        "This token may only read. Make one with the scope “read and write” under Settings, Tokens."
    )

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Tell whether the request may go on to the view, which decides about objects."""
        if request.method in SAFE_METHODS:
            return True
        if not request.user.is_authenticated:
            return False
        return not isinstance(request.auth, ApiToken) or request.auth.scope == ApiToken.Scope.WRITE


class SignedIn(ReadOrWriteScope):
    """Reading takes a user as well: for what belongs to one person."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Refuse anonymous requests of any method."""
        return request.user.is_authenticated and super().has_permission(request, view)
