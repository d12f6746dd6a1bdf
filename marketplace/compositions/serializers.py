"""The JSON of jobs: what may be asked, and what is told of one."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from composer.examples import Example as Row
from marketplace.catalogue.models import Adapter
from marketplace.compositions.models import CompositionJob, Evaluation
from marketplace.compositions.optimizers import OPTIMIZERS
from marketplace.compositions.services import PublishRequest

OPTIONS = (
    "selection",
    "n_candidates",
    "merge_method",
    "svd_rank",
    "optimizer",
    "weight_blocks",
    "quick_lora",
    "budget",
    "seed",
    "weight_bound",
    "l1_penalty",
    "dtype",
    "prompt_format",
    "prompting",
)


class RowSerializer(serializers.Serializer[Any]):
    """An input and the output expected for it; neither is trimmed, spaces may matter."""

    input = serializers.CharField(trim_whitespace=False, allow_blank=True)
    output = serializers.CharField(trim_whitespace=False, allow_blank=True)


class NewJobSerializer(serializers.ModelSerializer[CompositionJob]):
    """What to compose. Everything but the rows and the adapters has a default."""

    adapters = serializers.ListField(
        child=serializers.CharField(max_length=300),
        required=False,
        max_length=1000,
        help_text="owner/name for the newest revision, or owner/name@v2, owner/name@<40 hex>.",
    )
    base_model = serializers.CharField(required=False, help_text="With pick_for_me: whose adapters")
    rows = RowSerializer(many=True, required=False)
    examples = serializers.CharField(
        required=False,
        allow_blank=True,
        trim_whitespace=False,
        help_text="In place of rows: JSON Lines, CSV or lines of input => output.",
    )
    held_out = RowSerializer(many=True, required=False)
    n_fit = serializers.IntegerField(required=False, allow_null=True)
    hand_weights = serializers.DictField(
        child=serializers.FloatField(), required=False, allow_null=True
    )
    budget = serializers.IntegerField(required=False)
    seed = serializers.IntegerField(required=False)
    optimizer = serializers.ChoiceField(
        choices=list(OPTIMIZERS.items()),
        required=False,
        help_text="gradient uses gradients, all others do not.",
    )
    weight_blocks = serializers.IntegerField(
        required=False, help_text="With gradient: a weight for each of so many blocks of layers."
    )
    quick_lora = serializers.BooleanField(
        required=False,
        help_text="Train a small LoRA on the fit rows, with gradients, and let it join.",
    )

    class Meta:
        model = CompositionJob
        fields = (
            "title",
            "adapters",
            "pick_for_me",
            "base_model",
            "instruction",
            "rows",
            "examples",
            "held_out",
            "n_fit",
            "hand_weights",
            *OPTIONS,
        )

    def typed_rows(self, name: str) -> list[Row]:
        """Return `rows` or `held_out` as the services want them."""
        given = self.validated_data.get(name) or []
        return [Row(row["input"], row["output"]) for row in given]

    def options(self) -> dict[str, Any]:
        """Return the settings that were given."""
        return {name: self.validated_data[name] for name in OPTIONS if name in self.validated_data}


class IngredientSerializer(serializers.Serializer[Any]):
    """An adapter of the pool, pinned, and what was found of it."""

    adapter = serializers.CharField(source="name")
    revision = serializers.CharField(source="revision.oid")
    screening_loss = serializers.FloatField(allow_null=True)
    is_candidate = serializers.BooleanField()
    weight = serializers.FloatField(allow_null=True)


class JobSerializer(serializers.ModelSerializer[CompositionJob]):
    """A job as lists show it."""

    base_model = serializers.CharField(source="base_model.name")
    url = serializers.CharField(source="get_absolute_url")
    published = serializers.CharField(source="published.adapter.full_name", default=None)

    class Meta:
        model = CompositionJob
        fields: tuple[str, ...] = (
            "id",
            "number",
            "url",
            "title",
            "state",
            "base_model",
            "phase",
            "phase_done",
            "phase_total",
            "evaluations_spent",
            "best_loss",
            "error_code",
            "error",
            "error_fix",
            "published",
            "created_at",
            "started_at",
            "finished_at",
            *OPTIONS,
        )
        read_only_fields: tuple[str, ...] = fields


class JobDetailSerializer(JobSerializer):
    """A job with its pool and figures."""

    ingredients = IngredientSerializer(many=True)

    class Meta(JobSerializer.Meta):
        fields = (
            *JobSerializer.Meta.fields,
            "instruction",
            "pick_for_me",
            "hand_weights",
            "attempts",
            "cancel_requested",
            "worker",
            "base_loss",
            "best_single_loss",
            "uniform_loss",
            "optimizer_resolved",
            "svd_error",
            "peak_memory",
            "recipe",
            "ingredients",
        )
        read_only_fields = fields


class EvaluationSerializer(serializers.ModelSerializer[Evaluation]):
    """One scoring of a weight vector."""

    class Meta:
        model = Evaluation
        fields = ("number", "weights", "loss", "fit_loss", "is_best")


class CheckSerializer(serializers.Serializer[Any]):
    """What a request comes to, before it is a job."""

    problems = serializers.DictField(child=serializers.ListField(child=serializers.CharField()))
    adapters = serializers.IntegerField()
    n_fit = serializers.IntegerField()
    n_held_out = serializers.IntegerField()
    methods = serializers.DictField(child=serializers.ListField(child=serializers.CharField()))
    seconds = serializers.FloatField(allow_null=True)
    memory = serializers.IntegerField(
        allow_null=True, help_text="Bytes that the worker will hold at most, estimated."
    )


class ResultFileSerializer(serializers.Serializer[Any]):
    """A file that a job made."""

    path = serializers.CharField()
    size = serializers.IntegerField(source="blob.size")
    sha256 = serializers.CharField(source="blob.sha256")


class PublishSerializer(serializers.Serializer[Any]):
    """How the result is put on the shelf; what is left out is filled in."""

    name = serializers.CharField(required=False, max_length=96)
    summary = serializers.CharField(required=False, max_length=200, allow_blank=True)
    licence = serializers.CharField(required=False, max_length=200, allow_blank=True)
    task = serializers.CharField(required=False, max_length=80, allow_blank=True)
    tags = serializers.ListField(child=serializers.CharField(max_length=40), required=False)
    visibility = serializers.ChoiceField(choices=Adapter.Visibility.choices, required=False)
    with_samples = serializers.BooleanField(required=False)

    def publish_request(self, prefilled: dict[str, Any]) -> PublishRequest:
        """Return the request, what was left out taken from the prefilled dialog."""
        names = PublishRequest.__dataclass_fields__
        known = {name: value for name, value in prefilled.items() if name in names}
        return PublishRequest(**{**known, **self.validated_data})
