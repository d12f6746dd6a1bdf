"""The JSON of imports and exports; a token goes in and never comes out."""

from __future__ import annotations

from rest_framework import serializers

from marketplace.catalogue.models import Adapter, BaseModel
from marketplace.uploads.models import Export, Import, Transfer

STATE_FIELDS = (
    "id",
    "url",
    "hub",
    "repo_id",
    "commit",
    "state",
    "phase",
    "bytes_done",
    "bytes_total",
    "error_code",
    "error",
    "error_fix",
    "created_at",
    "finished_at",
)


class ImportSerializer(serializers.ModelSerializer[Import]):
    """An import: what was asked, how far it is, what it became."""

    url = serializers.CharField(source="get_absolute_url", read_only=True)
    adapter = serializers.CharField(
        source="revision.adapter.full_name", default=None, allow_null=True
    )
    revision = serializers.CharField(source="revision.oid", default=None, allow_null=True)
    draft = serializers.UUIDField(source="upload_id", allow_null=True)

    class Meta:
        model = Import
        fields = (*STATE_FIELDS, "asked_revision", "name", "adapter", "revision", "draft")
        read_only_fields = fields


class ExportSerializer(serializers.ModelSerializer[Export]):
    """An export: which revision goes where, how far it is."""

    url = serializers.CharField(source="get_absolute_url", read_only=True)
    adapter = serializers.CharField(source="revision.adapter.full_name")
    revision = serializers.CharField(source="revision.oid")

    class Meta:
        model = Export
        fields = (*STATE_FIELDS, "adapter", "revision", "private", "commit_url")
        read_only_fields = fields


class NewImportSerializer(serializers.Serializer[Transfer]):
    """What to fetch from where; the token is used once and not kept."""

    repo_id = serializers.CharField(help_text="owner/name, or the address of its page")
    hub = serializers.CharField(required=False, default="")
    revision = serializers.CharField(required=False, default="")
    name = serializers.CharField(required=False, default="")
    visibility = serializers.ChoiceField(
        choices=Adapter.Visibility.choices, required=False, default=""
    )
    base_model = serializers.SlugRelatedField(
        "name", queryset=BaseModel.objects.filter(state="ready"), required=False, default=None
    )
    token = serializers.CharField(required=False, default="", write_only=True)


class NewExportSerializer(serializers.Serializer[Transfer]):
    """What to push where; the token is used once and not kept."""

    adapter = serializers.CharField(help_text="owner/name here")
    revision = serializers.CharField(required=False, default="main")
    hub = serializers.CharField(required=False, default="")
    repo_id = serializers.CharField(help_text="owner/name there")
    private = serializers.BooleanField(required=False, default=True)
    token = serializers.CharField(write_only=True)


class RetrySerializer(serializers.Serializer[Transfer]):
    """The token once more, where one is needed: it was forgotten when the job ended."""

    token = serializers.CharField(required=False, default="", write_only=True)
