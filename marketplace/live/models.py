"""Events to browsers, as rows: what was said on a channel, in order.

A browser that was away reads on from the last id it saw. Rows are kept for a day; what they report
is kept elsewhere.
"""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class Event(models.Model):
    """Something that happened on a channel; the id is the order."""

    channel = models.CharField(max_length=120)
    kind = models.CharField(max_length=30)
    data = models.JSONField(default=dict)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["channel", "id"], name="event_by_channel"),  # read_events
            models.Index(fields=["created_at"], name="event_by_age"),  # tasks.forget_old_events
        ]

    def __str__(self) -> str:
        return f"{self.channel} {self.kind} {self.pk}"
