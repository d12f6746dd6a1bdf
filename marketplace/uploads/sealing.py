"""Keep a user's token for another hub unreadable while a job needs it, and no longer.

The key is made of SECRET_KEY and the job's id: what stands in one row opens no other, and a copy of
the database without the key opens none. Rows lose the sealed text at the moment their job ends, see
`models.Transfer`; docs/decisions/0009-tokens-for-other-hubs.md gives the reasons.
"""

from __future__ import annotations

import base64
from uuid import UUID

from cryptography.fernet import Fernet, InvalidToken
from django.utils.crypto import salted_hmac

_PURPOSE = "marketplace.uploads.sealing"
LONGEST_SECONDS = 24 * 60 * 60  # nothing that old belongs to a job that still runs


class SealBroken(Exception):
    """The sealed token cannot be opened: SECRET_KEY was changed, or it is too old."""


def seal(token: str, job_id: UUID) -> str:
    """Return the token as it may be stored with this job; an empty one stays empty."""
    return _box(job_id).encrypt(token.encode()).decode() if token else ""


def unseal(sealed: str, job_id: UUID) -> str:
    """Return the token that was sealed for this job.

    Raises:
        SealBroken: it was sealed with another SECRET_KEY, for another job, or too long ago.
    """
    if not sealed:
        return ""
    try:
        return _box(job_id).decrypt(sealed.encode(), ttl=LONGEST_SECONDS).decode()
    except InvalidToken:
        raise SealBroken(
            "The token that came with this job cannot be read any more. Retry with the token."
        ) from None


def _box(job_id: UUID) -> Fernet:
    key = salted_hmac(_PURPOSE, str(job_id), algorithm="sha256").digest()
    return Fernet(base64.urlsafe_b64encode(key))
