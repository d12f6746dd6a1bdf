"""The JSON of the shelf. What is written goes through `CardFields`, so nothing else can be set."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from composer.examples import Example
from marketplace.catalogue.models import Adapter, BaseModel, PromptFormat, Revision, Sample, Tag
from marketplace.catalogue.services import CardFields


class SampleSerializer(serializers.ModelSerializer[Sample]):
    """An input and the output expected for it."""

    class Meta:
        model = Sample
        fields = ("input", "output")


class AdapterSerializer(serializers.ModelSerializer[Adapter]):
    """An adapter as lists show it."""

    id = serializers.CharField(source="full_name", help_text="owner/name")
    owner = serializers.CharField(source="owner.username")
    base_model = serializers.CharField(source="base_model.name", default=None, allow_null=True)
    tags = serializers.SlugRelatedField("name", many=True, read_only=True)  # type: ignore[var-annotated]
    latest = serializers.CharField(source="latest.label", default=None, allow_null=True)
    revision = serializers.CharField(source="latest.oid", default=None, allow_null=True)
    url = serializers.SerializerMethodField()

    class Meta:
        model = Adapter
        fields: tuple[str, ...] = (
            "id",
            "owner",
            "name",
            "url",
            "summary",
            "kind",
            "visibility",
            "base_model",
            "licence",
            "task",
            "language",
            "prompt_format",
            "tags",
            "rank",
            "targets_key",
            "weights_size",
            "base_loss",
            "adapter_loss",
            "gain",
            "likes",
            "downloads",
            "latest",
            "revision",
            "created_at",
            "updated_at",
        )
        read_only_fields: tuple[str, ...] = fields

    def get_url(self, adapter: Adapter) -> str:
        """The page's path."""
        return adapter.get_absolute_url()


class FileSerializer(serializers.Serializer[Any]):
    """A file of a revision and where to get it."""

    path = serializers.CharField()
    size = serializers.IntegerField(source="blob.size")
    sha256 = serializers.CharField(source="blob.sha256")
    url = serializers.SerializerMethodField()

    def get_url(self, file: Any) -> str:
        """The path of its download, pinned to the revision."""
        revision = file.revision
        page = revision.adapter.get_absolute_url()
        return f"{page}/download/{revision.oid}/{file.path}"


class RevisionSerializer(serializers.ModelSerializer[Revision]):
    """A revision as a list of versions shows it."""

    id = serializers.CharField(source="oid")
    adapter = serializers.CharField(source="adapter.full_name")
    author = serializers.CharField(source="author.username", default=None, allow_null=True)
    base_model = serializers.CharField(source="base_model.name", default=None, allow_null=True)
    parent = serializers.CharField(  # type: ignore[assignment] # a field of ours, not the nesting
        source="parent.oid", default=None, allow_null=True
    )

    class Meta:
        model = Revision
        fields: tuple[str, ...] = (
            "id",
            "adapter",
            "label",
            "number",
            "title",
            "message",
            "state",
            "origin",
            "author",
            "parent",
            "base_model",
            "rank",
            "alpha",
            "target_modules",
            "dtype",
            "parameter_count",
            "weights_size",
            "weights_sha256",
            "is_yanked",
            "yank_reason",
            "created_at",
        )
        read_only_fields: tuple[str, ...] = fields


class EdgeSerializer(serializers.Serializer[Any]):
    """A parent or child; one that the reader may not see has its weight only."""

    adapter = serializers.CharField(source="name")
    revision = serializers.CharField(source="revision.oid", default=None, allow_null=True)
    sha256 = serializers.CharField(
        source="revision.weights_sha256",
        default=None,
        allow_null=True,
        help_text="Of the weights file.",
    )
    weight = serializers.FloatField()


class RevisionDetailSerializer(RevisionSerializer):
    """A revision with its files, facts and parents."""

    files = FileSerializer(many=True)
    parents = EdgeSerializer(many=True, source="visible_parents")
    summary = serializers.JSONField(source="summary_json", help_text="What inspection read.")
    provenance = serializers.JSONField()

    class Meta(RevisionSerializer.Meta):
        fields: tuple[str, ...] = (
            *RevisionSerializer.Meta.fields,
            "files",
            "parents",
            "summary",
            "provenance",
        )
        read_only_fields: tuple[str, ...] = fields


class AdapterDetailSerializer(AdapterSerializer):
    """An adapter with its card, samples and current revision."""

    samples = SampleSerializer(many=True)
    current = RevisionSerializer(source="latest", allow_null=True)

    class Meta(AdapterSerializer.Meta):
        fields: tuple[str, ...] = (
            *AdapterSerializer.Meta.fields,
            "card",
            "training_data",
            "samples",
            "current",
        )
        read_only_fields: tuple[str, ...] = fields


class CardSerializer(serializers.Serializer[CardFields]):
    """What an owner may change; a field that is left out stays."""

    summary = serializers.CharField(required=False, allow_blank=True)
    card = serializers.CharField(required=False, allow_blank=True, trim_whitespace=False)
    licence = serializers.CharField(required=False, allow_blank=True)
    task = serializers.CharField(required=False, allow_blank=True)
    language = serializers.CharField(required=False, allow_blank=True)
    prompt_format = serializers.ChoiceField(required=False, choices=PromptFormat.choices)
    training_data = serializers.CharField(required=False, allow_blank=True)
    tags = serializers.ListField(required=False, child=serializers.CharField())
    samples = SampleSerializer(many=True, required=False)
    visibility = serializers.ChoiceField(required=False, choices=Adapter.Visibility.choices)

    def card_fields(self) -> CardFields:
        """Return what was sent, ready for `services.update_card`."""
        data = dict(self.validated_data)
        if "samples" in data:
            data["samples"] = [Example(row["input"], row["output"]) for row in data["samples"]]
        return CardFields(**data)


class YankSerializer(serializers.Serializer[None]):
    """Why a revision is yanked."""

    reason = serializers.CharField(max_length=300)


class LikeSerializer(serializers.Serializer[None]):
    """The number of likes afterwards."""

    likes = serializers.IntegerField()


class LineageSerializer(serializers.Serializer[None]):
    """Parents of the current revision and everything composed from the adapter."""

    parents = EdgeSerializer(many=True)
    children = EdgeSerializer(many=True)


class FacetValueSerializer(serializers.Serializer[Any]):
    """One value of a facet."""

    value = serializers.CharField()
    label = serializers.CharField()  # type: ignore[assignment] # a field
    count = serializers.IntegerField()


class FacetSerializer(serializers.Serializer[Any]):
    """One facet with its counts."""

    name = serializers.CharField()
    title = serializers.CharField()
    counts = FacetValueSerializer(many=True)


class TagSerializer(serializers.ModelSerializer[Tag]):
    """A tag and how many adapters have it."""

    count = serializers.IntegerField()

    class Meta:
        model = Tag
        fields = ("name", "count")


class FoundFileSerializer(serializers.Serializer[Any]):
    """Where a content is found."""

    adapter = serializers.CharField(source="revision.adapter.full_name")
    revision = serializers.CharField(source="revision.oid")
    label = serializers.CharField(source="revision.label")  # type: ignore[assignment] # a field
    path = serializers.CharField()
    size = serializers.IntegerField(source="blob.size")
    url = serializers.SerializerMethodField()

    def get_url(self, file: Any) -> str:
        """The path of its download."""
        return FileSerializer().get_url(file)


class BaseModelSerializer(serializers.ModelSerializer[BaseModel]):
    """A base model as lists show it."""

    class Meta:
        model = BaseModel
        fields: tuple[str, ...] = (
            "name",
            "aliases",
            "licence",
            "prompt_format",
            "architecture",
            "is_seq2seq",
            "parameter_count",
            "state",
        )
        read_only_fields: tuple[str, ...] = fields


class BaseModelDetailSerializer(BaseModelSerializer):
    """A base model with its module table: each linear layer's input and output features."""

    class Meta(BaseModelSerializer.Meta):
        fields: tuple[str, ...] = (*BaseModelSerializer.Meta.fields, "module_table")
        read_only_fields: tuple[str, ...] = fields
