"""Named adapters, what their owners say of them, and who may have their files."""

from __future__ import annotations

from typing import Any, ClassVar

from django.conf import settings
from django.contrib.postgres.indexes import GinIndex, OpClass
from django.contrib.postgres.search import SearchVectorField
from django.core.validators import MaxLengthValidator, RegexValidator
from django.db import models
from django.db.models.functions import Coalesce, Lower, Upper

from marketplace.accounts.names import MAX_NAME_LENGTH, validate_adapter_name
from marketplace.catalogue.models.base_models import BaseModel, PromptFormat
from marketplace.catalogue.querysets import AdapterQuerySet

NO_GAIN = -1e30  # where nothing was measured: lower than any gain, so that sorting knows no NULL


class Tag(models.Model):
    """A word adapters are found by."""

    name = models.CharField(
        max_length=40,
        unique=True,
        validators=[
            RegexValidator(
                r"\A[a-z0-9][a-z0-9._+-]*\Z",
                "A tag holds lower-case letters, digits, “.”, “_”, “+” and “-”.",
            )
        ],
    )

    class Meta:
        ordering: ClassVar = ["name"]

    def __str__(self) -> str:
        return self.name


class Adapter(models.Model):
    """A named LoRA adapter and what its owner says of it; its files are in its revisions."""

    class Visibility(models.TextChoices):
        """Who can see that it exists."""

        PUBLIC = "public", "public"
        PRIVATE = "private", "private"

    class Kind(models.TextChoices):
        """How its weights came to be."""

        TRAINED = "trained", "trained"
        COMPOSED = "composed", "composed"

    class Gate(models.TextChoices):
        """Who may download what everybody can see; `AccessRequest` holds who was let in."""

        OPEN = "open", "everybody"
        AUTO = "auto", "whoever asks, and says by it who they are"
        MANUAL = "manual", "whom the owner lets in"

    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="adapters"
    )
    name = models.CharField(max_length=MAX_NAME_LENGTH, validators=[validate_adapter_name])
    full_name = models.CharField(max_length=2 * MAX_NAME_LENGTH + 1, editable=False)
    visibility = models.CharField(max_length=8, choices=Visibility, default=Visibility.PUBLIC)
    gated = models.CharField(max_length=6, choices=Gate, default=Gate.OPEN)
    kind = models.CharField(max_length=8, choices=Kind, default=Kind.TRAINED)
    summary = models.CharField(max_length=200, blank=True)
    card = models.TextField(blank=True, validators=[MaxLengthValidator(512 * 1024)])
    licence = models.CharField(max_length=200, blank=True, help_text="SPDX expression")
    task = models.CharField(max_length=60, blank=True)
    language = models.CharField(max_length=20, blank=True)
    prompt_format = models.CharField(max_length=8, choices=PromptFormat, default=PromptFormat.PLAIN)
    training_data = models.CharField(max_length=300, blank=True)
    base_model = models.ForeignKey(
        BaseModel, null=True, blank=True, on_delete=models.PROTECT, related_name="adapters"
    )
    tags = models.ManyToManyField(Tag, blank=True, related_name="adapters")
    latest = models.ForeignKey(
        "Revision",
        null=True,
        blank=True,
        editable=False,
        on_delete=models.SET_NULL,
        related_name="+",
        help_text="Newest accepted revision of main that is not yanked.",
    )
    base_loss = models.FloatField(null=True, blank=True, help_text="Mean loss of the base alone")
    adapter_loss = models.FloatField(null=True, blank=True, help_text="Mean loss with the adapter")
    gain = models.GeneratedField(
        expression=models.F("base_loss") - models.F("adapter_loss"),
        output_field=models.FloatField(null=True),
        db_persist=True,
    )
    # Copied from `latest`, so that a page of 100,000 adapters is filtered and counted in one table.
    rank = models.PositiveIntegerField(null=True, blank=True, editable=False)
    targets_key = models.CharField(max_length=300, blank=True, editable=False)
    peft_task = models.CharField(max_length=40, blank=True, editable=False)
    shape_key = models.CharField(
        max_length=64, blank=True, editable=False, help_text="Equal where factor merging fits."
    )
    weights_size = models.BigIntegerField(null=True, blank=True, editable=False)
    likes = models.PositiveIntegerField(default=0, editable=False)
    downloads = models.PositiveBigIntegerField(default=0, editable=False)
    trending = models.FloatField(default=0, editable=False, help_text="See services.counting.")
    # Database triggers (migration 0001) keep these two in step with the columns, tags and samples.
    search = SearchVectorField(null=True, editable=False)
    search_text = models.TextField(blank=True, editable=False, help_text="For trigrams.")
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    deleted_at = models.DateTimeField(
        null=True,
        blank=True,
        editable=False,
        help_text="The row stays: its name is never given away, its children keep their lineage.",
    )

    objects = AdapterQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint("owner", Lower("name"), name="adapter_name_unique_per_owner"),
        ]
        indexes: ClassVar = [
            GinIndex(fields=["search"], name="adapter_search"),
            GinIndex(OpClass("search_text", name="gin_trgm_ops"), name="adapter_trigrams"),
            models.Index(fields=["-downloads", "-id"], name="adapter_most_used"),
            models.Index(fields=["-updated_at", "-id"], name="adapter_newest"),
            models.Index(fields=["-likes", "-id"], name="adapter_most_liked"),
            models.Index(fields=["-trending", "-id"], name="adapter_trending"),
            models.Index(fields=["-created_at", "-id"], name="adapter_youngest"),
            models.Index(Lower("full_name"), name="adapter_address"),
            GinIndex(
                OpClass(Upper("full_name"), name="gin_trgm_ops"), name="adapter_address_parts"
            ),
            models.Index(
                Coalesce("gain", models.Value(NO_GAIN, models.FloatField())).desc(),
                models.F("id").desc(),
                name="adapter_best_gain",
            ),
        ]

    def __str__(self) -> str:
        return self.full_name

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Keep `full_name`, which search and addresses use, in step."""
        self.full_name = f"{self.owner.username}/{self.name}"
        super().save(*args, **kwargs)

    def get_absolute_url(self) -> str:
        """The adapter's page, at the address the hub clients use as well."""
        return f"/{self.full_name}"

    @property
    def is_gated(self) -> bool:
        """Whether its files are only for its owner and whom they let in."""
        return self.gated != self.Gate.OPEN


class AdapterAlias(models.Model):
    """An `owner/name` that an adapter had before; old addresses lead to the new one."""

    full_name = models.CharField(max_length=2 * MAX_NAME_LENGTH + 1)
    adapter = models.ForeignKey(Adapter, on_delete=models.CASCADE, related_name="aliases")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name_plural = "adapter aliases"
        constraints: ClassVar = [
            models.UniqueConstraint(Lower("full_name"), name="alias_unique_in_any_case"),
        ]

    def __str__(self) -> str:
        return f"{self.full_name} -> {self.adapter_id}"


class AccessRequest(models.Model):
    """A user's wish to download a gated adapter, and what became of it."""

    class State(models.TextChoices):
        """Only a granted one opens the files."""

        PENDING = "pending", "waiting for the owner"
        GRANTED = "granted", "granted"
        REFUSED = "refused", "refused"

    adapter = models.ForeignKey(Adapter, on_delete=models.CASCADE, related_name="access_requests")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="access_requests"
    )
    state = models.CharField(max_length=8, choices=State, default=State.PENDING)
    message = models.CharField(max_length=300, blank=True, help_text="What it is wanted for.")
    created_at = models.DateTimeField(auto_now_add=True)
    decided_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering: ClassVar = ["-created_at"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["adapter", "user"], name="access_asked_once"),
        ]

    def __str__(self) -> str:
        return f"{self.user_id} asks for {self.adapter_id}: {self.state}"


class Sample(models.Model):
    """An input and output the adapter is for; people and similarity search find it by these."""

    adapter = models.ForeignKey(Adapter, on_delete=models.CASCADE, related_name="samples")
    position = models.PositiveSmallIntegerField()
    input = models.TextField(max_length=8192)
    output = models.TextField(max_length=8192)

    class Meta:
        ordering: ClassVar = ["position"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["adapter", "position"], name="sample_position_unique"),
        ]

    def __str__(self) -> str:
        return f"{self.input} => {self.output}"
