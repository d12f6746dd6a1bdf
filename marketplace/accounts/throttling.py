"""How many requests the API takes from one user or address.

DRF counts in the shared cache. As with `limits`, nothing is refused while the cache is away:
reading and publishing must go on without it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import redis
from rest_framework.request import Request
from rest_framework.throttling import (
    AnonRateThrottle,
    ScopedRateThrottle,
    SimpleRateThrottle,
    UserRateThrottle,
)

if TYPE_CHECKING:  # at run time views import this module
    from rest_framework.views import APIView

logger = logging.getLogger(__name__)


class _Lenient(SimpleRateThrottle):
    def allow_request(self, request: Request, view: APIView) -> bool:
        """Let the request in where it cannot be counted."""
        try:
            return super().allow_request(request, view)
        except (OSError, redis.RedisError):
            logger.warning("throttling: the cache does not answer; the request is not counted")
            return True


class AnonymousThrottle(_Lenient, AnonRateThrottle):
    """Requests without a user, by address: THROTTLE_ANON."""


class UserThrottle(_Lenient, UserRateThrottle):
    """Requests of one user: THROTTLE_USER."""


class ScopedThrottle(_Lenient, ScopedRateThrottle):
    """What a view's `throttle_scope` names: THROTTLE_UPLOADS."""
