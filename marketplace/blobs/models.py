"""Content-addressed files: one row and one stored object for each distinct content.

A Blob knows nothing of names, owners or access: revisions give it those. Its row is written only
after the object lies complete in the storage, so a row never promises bytes that are not there.
"""

from __future__ import annotations

from typing import ClassVar

from django.core.validators import RegexValidator
from django.db import models

SHA256 = RegexValidator(r"\A[0-9a-f]{64}\Z")


class Blob(models.Model):
    """The content with this sha256."""

    sha256 = models.CharField(max_length=64, primary_key=True, validators=[SHA256])
    git_sha1 = models.CharField(max_length=40)
    size = models.BigIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(condition=models.Q(size__gte=0), name="blob_size_not_negative"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["created_at"], name="blob_orphans"),  # collect_orphan_blobs
        ]

    def __str__(self) -> str:
        return self.sha256

    @property
    def storage_name(self) -> str:
        """Where the storage keeps it: never a name that a user chose."""
        return f"sha256/{self.sha256[:2]}/{self.sha256}"
