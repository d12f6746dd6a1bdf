"""Who is at the other end of a request that only signed-in users reach."""

from __future__ import annotations

from django.http import Http404, HttpRequest
from rest_framework.request import Request

from marketplace.accounts.models import User


def signed_in(request: HttpRequest | Request) -> User:
    """Return the user of a page or an API call.

    `login_required` and the permission classes let nobody else through; a view that lacks them
    answers as if it were not there.

    Raises:
        Http404: nobody is signed in.
    """
    if not isinstance(request.user, User):
        raise Http404
    return request.user
