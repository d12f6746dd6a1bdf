"""What clients have sent ahead of the commit that will name it: large files and Xet xorbs.

Knowing a hash is no right to its content: only who sent the bytes, or may read a revision that
holds them, can name them in a commit. All of this goes when it is a day old.
"""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models

from marketplace.blobs.models import Blob


class SentObject(models.Model):
    """A large file that a user has sent whole; they may name it in their commits."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    blob = models.ForeignKey(Blob, on_delete=models.CASCADE, related_name="+")
    created_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["user", "blob"], name="object_sent_once"),
        ]
        indexes: ClassVar = [models.Index(fields=["created_at"], name="object_old")]

    def __str__(self) -> str:
        return f"{self.user_id} sent {self.blob_id}"


class XetSpace(models.Model):
    """Where a user's Xet client keeps xorbs: its number is in the client's address of the space.

    Clients remember for an address what they have sent there and never send it again, so the
    number rises whenever xorbs are thrown away.
    """

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+"
    )
    generation = models.PositiveIntegerField(default=1)
    used_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return f"{self.user_id}, generation {self.generation}"


class Xorb(models.Model):
    """A stored xorb of one generation of a user's space; its bytes are in `xorb_store`."""

    space = models.ForeignKey(XetSpace, on_delete=models.CASCADE, related_name="xorbs")
    generation = models.PositiveIntegerField()
    hash = models.CharField(max_length=64, validators=[RegexValidator(r"\A[0-9a-f]{64}\Z")])
    size = models.PositiveIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["space", "generation", "hash"], name="xorb_once"),
        ]

    def __str__(self) -> str:
        return self.hash
