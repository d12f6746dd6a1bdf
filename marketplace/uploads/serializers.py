"""The JSON of uploads: a draft with its files, problems and summary, and what may be changed."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from marketplace.catalogue.models import Adapter, PromptFormat
from marketplace.uploads.models import Upload, UploadedFile


class UploadedFileSerializer(serializers.ModelSerializer[UploadedFile]):
    """A file as far as it has arrived."""

    class Meta:
        model = UploadedFile
        fields = ("path", "received", "sha256", "complete")
        read_only_fields = fields


class ProblemSerializer(serializers.Serializer[Any]):
    """One reason against the files."""

    file = serializers.CharField()
    field = serializers.CharField()
    message = serializers.CharField()
    fix = serializers.CharField()


class UploadSerializer(serializers.ModelSerializer[Upload]):
    """A draft."""

    files = UploadedFileSerializer(many=True, read_only=True)
    problems = ProblemSerializer(many=True, read_only=True)
    summary_read = serializers.JSONField(source="summary_json", read_only=True)
    base_model = serializers.CharField(source="base_model.name", read_only=True, default=None)
    adapter = serializers.CharField(
        source="revision.adapter.full_name", read_only=True, default=None
    )
    revision = serializers.CharField(source="revision.oid", read_only=True, default=None)

    class Meta:
        model = Upload
        fields = (
            "id", "state", "files", "problems", "fitting_bases", "summary_read", "base_model",
            "name", "summary", "card", "licence", "task", "language", "prompt_format",
            "training_data", "tags", "samples", "visibility", "adapter", "revision",
            "created_at", "updated_at",
        )  # fmt: skip
        read_only_fields = fields


class CardSerializer(serializers.Serializer[Any]):
    """The card's fields; those that are left out stay as they are."""

    name = serializers.CharField(max_length=96, required=False)
    summary = serializers.CharField(max_length=200, required=False, allow_blank=True)
    card = serializers.CharField(required=False, allow_blank=True, trim_whitespace=False)
    licence = serializers.CharField(max_length=200, required=False, allow_blank=True)
    task = serializers.CharField(max_length=60, required=False, allow_blank=True)
    language = serializers.CharField(max_length=20, required=False, allow_blank=True)
    prompt_format = serializers.ChoiceField(choices=PromptFormat.choices, required=False)
    training_data = serializers.CharField(max_length=300, required=False, allow_blank=True)
    tags = serializers.ListField(
        child=serializers.CharField(max_length=40), required=False, max_length=20
    )
    samples = serializers.CharField(required=False, allow_blank=True, trim_whitespace=False)
    visibility = serializers.ChoiceField(choices=Adapter.Visibility.choices, required=False)


class CheckSerializer(serializers.Serializer[Any]):
    """Against which base to check; the one that the configuration names unless told."""

    base_model = serializers.CharField(required=False, allow_blank=True)
