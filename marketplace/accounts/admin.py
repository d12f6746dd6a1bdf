"""Users and tokens for administrators; a token's secret can be seen nowhere."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.http import HttpRequest

from marketplace.accounts.models import ApiToken, User


@admin.register(User)
class AccountAdmin(UserAdmin):  # type: ignore[type-arg]
    """Django's own page, with what we added."""

    fieldsets = (*(UserAdmin.fieldsets or ()), ("On the site", {"fields": ("bio",)}))


@admin.register(ApiToken)
class ApiTokenAdmin(admin.ModelAdmin[ApiToken]):
    """To see and revoke; tokens are made by their users only."""

    list_display = ("name", "user", "key", "scope", "expires_at", "last_used_at")
    list_select_related = ("user",)
    search_fields = ("user__username", "key", "name")

    def has_add_permission(self, request: HttpRequest) -> bool:
        """No one makes a token for somebody else."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: ApiToken | None = None) -> bool:
        """A token is revoked, never changed."""
        return False
