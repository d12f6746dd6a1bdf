"""The JSON of drafts."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from composer.errors import InvalidExamples, Problem
from composer.examples import parse_examples
from marketplace.catalogue.models import BaseModel
from marketplace.catalogue.serializers import CardSerializer, SampleSerializer
from marketplace.uploads.models import Upload, UploadedFile


class UploadedFileSerializer(serializers.ModelSerializer[UploadedFile]):
    """One file as far as it has arrived; go on sending at offset `received`."""

    class Meta:
        model = UploadedFile
        fields = ("path", "received", "complete", "sha256")
        read_only_fields = fields


class ProblemSerializer(serializers.Serializer[Problem]):
    """One thing that is wrong, and how to mend it."""

    file = serializers.CharField()
    field = serializers.CharField()
    message = serializers.CharField()
    fix = serializers.CharField()


class UploadSerializer(serializers.ModelSerializer[Upload]):
    """A draft: its files, what the check said, and the card so far."""

    id = serializers.UUIDField(read_only=True)
    url = serializers.SerializerMethodField()
    files = UploadedFileSerializer(many=True, read_only=True)
    problems = ProblemSerializer(many=True, read_only=True)
    base_model = serializers.CharField(source="base_model.name", default=None, allow_null=True)
    adapter_summary = serializers.JSONField(source="summary_json", read_only=True)
    tags = serializers.ListField(child=serializers.CharField())
    fitting_bases = serializers.ListField(child=serializers.CharField())
    samples = serializers.SerializerMethodField()
    adapter = serializers.CharField(
        source="revision.adapter.full_name", default=None, allow_null=True
    )
    revision = serializers.CharField(source="revision.oid", default=None, allow_null=True)

    class Meta:
        model = Upload
        fields = (
            "id",
            "url",
            "state",
            "files",
            "problems",
            "base_model",
            "fitting_bases",
            "adapter_summary",
            "name",
            "summary",
            "card",
            "licence",
            "task",
            "language",
            "prompt_format",
            "training_data",
            "tags",
            "samples",
            "visibility",
            "adapter",
            "revision",
            "created_at",
            "updated_at",
        )
        read_only_fields = fields

    @extend_schema_field(SampleSerializer(many=True))
    def get_samples(self, upload: Upload) -> list[dict[str, str]]:
        """The pairs; none where what was typed on the page cannot be read."""
        try:
            return [asdict(row) for row in parse_examples(upload.samples)]
        except InvalidExamples:
            return []

    def get_url(self, upload: Upload) -> str:
        """The page's path."""
        return upload.get_absolute_url()


class DraftSerializer(CardSerializer):
    """The card of a draft; a field that is left out stays."""

    name = serializers.CharField(required=False, allow_blank=True)

    def typed(self) -> dict[str, Any]:
        """Return the fields as a draft keeps them."""
        data = dict(self.validated_data)
        if "samples" in data:
            rows = [{"input": row["input"], "output": row["output"]} for row in data["samples"]]
            data["samples"] = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        return data


class ValidateSerializer(serializers.Serializer[None]):
    """The base to check against, where it is not the one that adapter_config.json names."""

    base_model = serializers.SlugRelatedField(
        "name", queryset=BaseModel.objects.filter(state="ready"), required=False
    )
