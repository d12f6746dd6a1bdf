"""Who uses the site: people, and the tokens their programs sign in with.

A user name is also the first half of every adapter's id, so it follows `names`. Tokens are stored
as a SHA-256 hash only; what a user owns elsewhere is found from there, not from here.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import datetime
from typing import ClassVar

from django.conf import settings
from django.contrib.auth.models import AbstractUser
from django.db import models
from django.db.models.functions import Lower
from django.utils import timezone

from marketplace.accounts.names import MAX_NAME_LENGTH, validate_owner_name

TOKEN_PREFIX = "lm"  # noqa: S105 (the public part)


class User(AbstractUser):
    """A person with a name of their own in the catalogue."""

    username = models.CharField(
        "name",
        max_length=MAX_NAME_LENGTH,
        unique=True,
        validators=[validate_owner_name],
        help_text="Your adapters are found under this name, as in name/adapter.",
        error_messages={"unique": "This name is taken. Choose another one."},
    )
    email = models.EmailField("e-mail address", blank=True)
    bio = models.CharField(max_length=300, blank=True)

    class Meta(AbstractUser.Meta):
        constraints: ClassVar = [
            models.UniqueConstraint(
                Lower("username"),
                name="user_name_unique_in_any_case",
                violation_error_message="This name is taken. Choose another one.",
            ),
        ]


class ApiToken(models.Model):
    """A bearer token `lm_<id>_<secret>`; only the hash of the secret is kept."""

    class Scope(models.TextChoices):
        """What a request with the token may do."""

        READ = "read", "read"
        WRITE = "write", "read and write"

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_tokens"
    )
    name = models.CharField(max_length=60)
    key = models.CharField(max_length=16, unique=True, editable=False)
    secret_hash = models.CharField(max_length=64, editable=False)
    scope = models.CharField(max_length=8, choices=Scope, default=Scope.READ)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    last_used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering: ClassVar = ["-created_at"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["user", "name"], name="token_name_unique_per_user"),
        ]

    def __str__(self) -> str:
        return f"{TOKEN_PREFIX}_{self.key}_…"

    @classmethod
    def issue(
        cls, *, user: User, name: str, scope: str, expires_at: datetime
    ) -> tuple[ApiToken, str]:
        """Make a token and return it with its text, which is shown once and kept nowhere."""
        key, secret = secrets.token_hex(6), secrets.token_urlsafe(32).replace("_", "-")
        token = cls.objects.create(
            user=user,
            name=name,
            key=key,
            secret_hash=_hash_secret(secret),
            scope=scope,
            expires_at=expires_at,
        )
        return token, f"{TOKEN_PREFIX}_{key}_{secret}"

    def matches(self, secret: str) -> bool:
        """Compare in constant time, and refuse an expired token."""
        same = hmac.compare_digest(self.secret_hash, _hash_secret(secret))
        return same and self.expires_at > timezone.now()


def _hash_secret(secret: str) -> str:
    # The secret has 256 random bits: a plain hash cannot be guessed back, a slow one costs time.
    return hashlib.sha256(secret.encode()).hexdigest()
