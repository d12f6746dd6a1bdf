"""Drafts in the admin: to look at, since only their owners may change them."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest

from marketplace.uploads.models import Upload


@admin.register(Upload)
class UploadAdmin(admin.ModelAdmin[Upload]):
    """Whose drafts there are, and why files were refused."""

    list_display = ("id", "owner", "name", "state", "updated_at")
    list_filter = ("state",)
    search_fields = ("owner__username", "name")
    date_hierarchy = "created_at"

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Drafts begin with files."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Upload | None = None) -> bool:
        """Read only."""
        return False
