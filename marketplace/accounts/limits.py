"""How often one address may do what costs us or others: sign up, ask for mails.

Counted in the shared cache, so that every web process sees the same number. Without the cache
nothing is refused: people must be able to sign up while it is away. Wrong passwords are counted by
django-axes, API requests by DRF.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass

import redis
from django.core.cache import cache

logger = logging.getLogger(__name__)

HOUR, DAY = 3600, 24 * 3600


@dataclass(frozen=True)
class Limit:
    """At most `times` uses in `seconds`, counted for each key by itself."""

    name: str
    times: int
    seconds: int

    def use(self, key: str) -> bool:
        """Count one use; return False where it was one too many."""
        place = self._place(key)
        try:
            cache.add(place, 0, self.seconds)
            return cache.incr(place) <= self.times
        except ValueError:  # it ran out between the two lines
            return True
        except (OSError, redis.RedisError):
            logger.warning("limits: the cache does not answer; %s is not counted", self.name)
            return True

    def is_used_up(self, key: str) -> bool:
        """Tell whether the next use would be one too many, without counting."""
        try:
            return int(cache.get(self._place(key), 0)) >= self.times
        except (OSError, redis.RedisError):
            logger.warning("limits: the cache does not answer; %s is not counted", self.name)
            return False

    def _place(self, key: str) -> str:
        # Hashed: a key may be an e-mail address, which has no business in a cache's key list.
        digest = hashlib.sha256(key.encode(errors="replace")).hexdigest()[:32]
        return f"limit:{self.name}:{digest}"
