"""What is counted of adapters: likes, and downloads by day. Writes are in `services.counting`."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models

from marketplace.catalogue.models.adapters import Adapter


class Like(models.Model):
    """A user's liking of an adapter; `Adapter.likes` is the count."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="likes"
    )
    adapter = models.ForeignKey(Adapter, on_delete=models.CASCADE, related_name="liked_by")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["user", "adapter"], name="like_once"),
        ]

    def __str__(self) -> str:
        return f"{self.user_id} likes {self.adapter_id}"


class DownloadCount(models.Model):
    """Downloads of one adapter on one day; `Adapter.downloads` is the sum."""

    adapter = models.ForeignKey(Adapter, on_delete=models.CASCADE, related_name="download_days")
    day = models.DateField()
    count = models.PositiveIntegerField(default=0)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["adapter", "day"], name="download_day_unique"),
        ]

    def __str__(self) -> str:
        return f"{self.adapter_id} {self.day}: {self.count}"


class NewDownload(models.Model):
    """A download that is not counted yet; `services.add_up_downloads` takes it from here."""

    # No foreign key: it would lock the adapter's row for each download.
    adapter_id = models.BigIntegerField()
    day = models.DateField()

    def __str__(self) -> str:
        return f"{self.adapter_id} {self.day}"
