"""Signed, short-lived permissions for the two upload protocols.

Their requests carry no token of the site: what they may do is in the address or the bearer text
itself. Each is tied to the token it was given for, so revoking that ends it at once.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from django.core import signing
from django.utils import timezone

from marketplace.accounts.models import ApiToken, User
from marketplace.hub.errors import BadToken, NotAllowed

LFS_SECONDS = 3600
XET_SECONDS = 900
_SALT = "marketplace.hub."
_Kind = TypeVar("_Kind", "LfsPermit", "XetPermit")


@dataclass(frozen=True)
class LfsPermit:
    """May send a content: whole (0 of 0), a part of it, or (part 0) put its parts together."""

    token: int
    oid: str
    size: int
    part: int = 0
    parts: int = 0


@dataclass(frozen=True)
class XetPermit:
    """May send xorbs and shards to one generation of the user's space."""

    token: int
    space: int
    generation: int


def sign(permit: LfsPermit | XetPermit) -> str:
    """Return the permit as a text that only this site can have written."""
    return signing.dumps(asdict(permit), salt=_SALT + type(permit).__name__)


def read_lfs(text: str) -> tuple[LfsPermit, User]:
    """Return a permit of an address and whose it is.

    Raises:
        NotAllowed: it was altered, is too old, or its token was revoked.
    """
    found = _read(text, LfsPermit, LFS_SECONDS)
    if found is None:
        raise NotAllowed("This upload address is not valid any more. Start the upload again.")
    return found


def read_xet(text: str) -> tuple[XetPermit, User]:
    """Return a permit of a bearer text and whose it is.

    Raises:
        BadToken: it was altered, is too old, or its token was revoked; the client gets a new one.
    """
    found = _read(text, XetPermit, XET_SECONDS)
    if found is None:
        raise BadToken
    return found


def _read(text: str, kind: type[_Kind], seconds: int) -> tuple[_Kind, User] | None:
    try:
        fields: dict[str, Any] = signing.loads(text, salt=_SALT + kind.__name__, max_age=seconds)
    except signing.BadSignature:
        return None
    permit = kind(**fields)
    token = (
        ApiToken.objects.select_related("user")
        .filter(
            pk=permit.token,
            scope=ApiToken.Scope.WRITE,
            expires_at__gt=timezone.now(),
            user__is_active=True,
        )
        .first()
    )
    return None if token is None else (permit, token.user)
