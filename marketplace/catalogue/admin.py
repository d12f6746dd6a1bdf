"""Administration of the shelf: base models are made here; adapters can be looked at."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from kombu.exceptions import OperationalError

from marketplace.catalogue.models import Adapter, BaseModel, Revision
from marketplace.catalogue.tasks import compute_module_table

_SOURCE = {"source_kind", "location", "revision", "file"}


@admin.register(BaseModel)
class BaseModelAdmin(admin.ModelAdmin[BaseModel]):
    """A worker reads the layers after every change of the source."""

    list_display = ("name", "source_kind", "architecture", "parameter_count", "licence", "state")
    list_filter = ("state", "source_kind", "prompt_format")
    search_fields = ("name", "location")
    readonly_fields = ("state", "error", "architecture", "is_seq2seq", "parameter_count")
    actions = ("recompute",)

    def save_model(
        self,
        request: HttpRequest,
        obj: BaseModel,
        form: Any,
        change: bool,  # noqa: FBT001
    ) -> None:
        """Save, and let a worker read the layers where the source is new."""
        if not change or _SOURCE & set(form.changed_data):
            obj.state, obj.error = BaseModel.State.PENDING, ""
            transaction.on_commit(lambda: self._enqueue(request, [obj]))
        super().save_model(request, obj, form, change)

    @admin.action(description="Read the layers of the selected base models again")
    def recompute(self, request: HttpRequest, queryset: QuerySet[BaseModel]) -> None:
        """Ask a worker for each of them."""
        chosen = list(queryset)
        queryset.update(state=BaseModel.State.PENDING, error="")
        transaction.on_commit(lambda: self._enqueue(request, chosen))

    def _enqueue(self, request: HttpRequest, base_models: list[BaseModel]) -> None:
        try:
            for base_model in base_models:
                compute_module_table.delay(base_model.pk)
        except (OperationalError, OSError):
            text = "The queue cannot be reached. Start it, then choose “Read the layers again”."
            messages.error(request, text)
        else:
            messages.info(request, f"A worker reads the layers of {len(base_models)} base models.")


class _LookedAt:
    """To find and look at; changes are their owners' and go through the services."""

    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Adapters are published, not added."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Only owners change them."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Deleting keeps the row; see `services.delete_adapter`."""
        return False


@admin.register(Adapter)
class AdapterAdmin(_LookedAt, admin.ModelAdmin[Adapter]):
    """Adapters by name."""

    list_display = ("full_name", "kind", "visibility", "base_model", "downloads", "deleted_at")
    list_filter = ("kind", "visibility")
    list_select_related = ("base_model",)
    search_fields = ("full_name",)


@admin.register(Revision)
class RevisionAdmin(_LookedAt, admin.ModelAdmin[Revision]):
    """Revisions by id or hash."""

    list_display = ("__str__", "number", "state", "origin", "rank", "yanked_at", "created_at")
    list_filter = ("state", "origin")
    list_select_related = ("adapter",)
    search_fields = ("oid", "adapter__full_name", "weights_sha256")
