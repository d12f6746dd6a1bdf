"""The shelf: base models, adapters, their immutable revisions, and how these are related.

An Adapter is `owner/name`; a Revision is an immutable tree of files; Refs point at revisions. Only
accepted revisions exist for anyone but their owner. Writes that touch more than one row are in
`services`, reads worth a name in `querysets`.
"""

from __future__ import annotations

from typing import Any, ClassVar

from django.conf import settings
from django.contrib.postgres.indexes import GinIndex, OpClass
from django.contrib.postgres.search import SearchVectorField
from django.core.validators import MaxLengthValidator, RegexValidator
from django.db import models
from django.db.models.functions import Coalesce, Lower, Upper

from composer.inspection import AdapterSummary
from marketplace.accounts.names import MAX_NAME_LENGTH, validate_adapter_name
from marketplace.blobs.models import Blob
from marketplace.catalogue.querysets import AdapterQuerySet, BaseModelQuerySet, RevisionQuerySet

NO_GAIN = -1e30  # where nothing was measured: lower than any gain, so that sorting knows no NULL


class PromptFormat(models.TextChoices):
    """How an example becomes the text that the model reads."""

    PLAIN = "plain", "plain: input, a space, output"
    CHAT = "chat", "chat: the tokenizer's template"


class BaseModel(models.Model):
    """A language model that adapters are made for: a pinned source and the table of its layers."""

    class SourceKind(models.TextChoices):
        """Where the weights come from; the names are composer's."""

        HUB = "hub", "hub repository"
        FOLDER = "folder", "local folder"
        GGUF_PACKAGE = "gguf_package", "GGUF inside an installed Python package"

    class State(models.TextChoices):
        """Whether a worker has computed the module table."""

        PENDING = "pending", "waiting for its module table"
        READY = "ready", "ready"
        FAILED = "failed", "failed"

    name = models.CharField(
        max_length=200, unique=True, help_text="The hub id that adapter_config.json names."
    )
    aliases = models.JSONField(
        default=list, blank=True, help_text="Other names under which adapters may refer to it."
    )
    source_kind = models.CharField(max_length=16, choices=SourceKind)
    location = models.CharField(max_length=300, help_text="Hub id, folder or Python package.")
    revision = models.CharField(max_length=64, blank=True)
    file = models.CharField(max_length=300, blank=True, help_text="The GGUF inside the package.")
    licence = models.CharField(max_length=60, blank=True)
    prompt_format = models.CharField(max_length=8, choices=PromptFormat, default=PromptFormat.PLAIN)
    architecture = models.CharField(max_length=100, blank=True, editable=False)
    is_seq2seq = models.BooleanField(default=False, editable=False)
    parameter_count = models.BigIntegerField(null=True, blank=True, editable=False)
    module_table = models.JSONField(default=dict, blank=True, editable=False)
    state = models.CharField(max_length=8, choices=State, default=State.PENDING, editable=False)
    error = models.TextField(blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = BaseModelQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def short_name(self) -> str:
        """The part after the owner."""
        return self.name.rpartition("/")[2]


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


class Revision(models.Model):
    """An immutable tree of files with a 40-hex id; accepted, refused, or an incomplete draft."""

    class State(models.TextChoices):
        """Only accepted revisions exist for anyone but the owner."""

        DRAFT = "draft", "draft"
        ACCEPTED = "accepted", "accepted"
        REFUSED = "refused", "refused"

    class Origin(models.TextChoices):
        """The road by which it came."""

        UPLOAD = "upload", "uploaded in the browser or by API"
        HUB = "hub", "pushed by a hub client"
        IMPORT = "import", "imported from a hub"
        COMPOSITION = "composition", "composed here"

    adapter = models.ForeignKey(Adapter, on_delete=models.CASCADE, related_name="revisions")
    oid = models.CharField(max_length=40, validators=[RegexValidator(r"\A[0-9a-f]{40}\Z")])
    parent = models.ForeignKey("self", null=True, blank=True, on_delete=models.PROTECT)
    number = models.PositiveIntegerField(null=True, blank=True, help_text="v1, v2, … on main")
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="revisions"
    )
    title = models.CharField(max_length=200)
    message = models.TextField(blank=True)
    state = models.CharField(max_length=8, choices=State, default=State.DRAFT)
    problems = models.JSONField(default=list, blank=True)
    origin = models.CharField(max_length=12, choices=Origin)
    provenance = models.JSONField(default=dict, blank=True)
    base_model = models.ForeignKey(
        BaseModel, null=True, blank=True, on_delete=models.PROTECT, related_name="revisions"
    )
    # Read from the files when accepted; copied out of `summary_json` for the facets and the lists.
    summary_json = models.JSONField(null=True, blank=True)
    rank = models.PositiveIntegerField(null=True, blank=True)
    alpha = models.FloatField(null=True, blank=True)
    target_modules = models.JSONField(default=list, blank=True)
    targets_key = models.CharField(max_length=300, blank=True, help_text="q_proj, v_proj")
    dtype = models.CharField(max_length=8, blank=True)
    parameter_count = models.BigIntegerField(null=True, blank=True)
    weights_size = models.BigIntegerField(null=True, blank=True)
    weights_sha256 = models.CharField(max_length=64, blank=True, db_index=True)
    job_key = models.UUIDField(
        null=True, blank=True, unique=True, help_text="One revision for each published job."
    )
    yanked_at = models.DateTimeField(null=True, blank=True)
    yank_reason = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = RevisionQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["-id"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["adapter", "oid"], name="revision_oid_unique"),
            models.UniqueConstraint(fields=["adapter", "number"], name="revision_number_unique"),
        ]

    def __str__(self) -> str:
        return f"{self.adapter.full_name}@{self.short_oid}"

    @property
    def short_oid(self) -> str:
        """The first eight digits, for people."""
        return self.oid[:8]

    @property
    def label(self) -> str:
        """v3, or the short id where it has no number."""
        return f"v{self.number}" if self.number else self.short_oid

    @property
    def is_yanked(self) -> bool:
        """Whether it was taken off the shelf; exact pins keep working."""
        return self.yanked_at is not None

    @property
    def files_size(self) -> int:
        """Bytes of all its files; runs a query."""
        return int(self.files.aggregate(total=models.Sum("blob__size"))["total"] or 0)

    @property
    def adapter_summary(self) -> AdapterSummary | None:
        """What inspection read from the files."""
        return AdapterSummary.from_dict(self.summary_json) if self.summary_json else None


class RevisionFile(models.Model):
    """A name in a revision's tree and the content under it."""

    revision = models.ForeignKey(Revision, on_delete=models.CASCADE, related_name="files")
    path = models.CharField(max_length=500)
    blob = models.ForeignKey(Blob, on_delete=models.PROTECT, related_name="uses")

    class Meta:
        ordering: ClassVar = ["path"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["revision", "path"], name="file_path_unique"),
        ]

    def __str__(self) -> str:
        return self.path


class Ref(models.Model):
    """A branch or tag: a name that points at a revision."""

    class Kind(models.TextChoices):
        """Only branches move."""

        BRANCH = "branch", "branch"
        TAG = "tag", "tag"

    adapter = models.ForeignKey(Adapter, on_delete=models.CASCADE, related_name="refs")
    kind = models.CharField(max_length=6, choices=Kind, default=Kind.BRANCH)
    name = models.CharField(max_length=120)
    message = models.CharField(max_length=300, blank=True)
    revision = models.ForeignKey(Revision, on_delete=models.PROTECT, related_name="refs")

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["adapter", "name"], name="ref_name_unique"),
        ]

    def __str__(self) -> str:
        return self.name


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


class Lineage(models.Model):
    """An edge from a composed revision to one of the revisions it was composed from."""

    child = models.ForeignKey(Revision, on_delete=models.CASCADE, related_name="parents")
    parent = models.ForeignKey(Revision, on_delete=models.PROTECT, related_name="children")
    position = models.PositiveSmallIntegerField()
    weight = models.FloatField(help_text="Signed weight that the search found")

    class Meta:
        ordering: ClassVar = ["position"]
        verbose_name_plural = "lineage"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["child", "parent"], name="lineage_edge_unique"),
        ]

    def __str__(self) -> str:
        return f"{self.child_id} <- {self.weight:+.2f} {self.parent_id}"


class Like(models.Model):
    """A user's liking of an adapter; `Adapter.likes` is the count."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="likes"
    )
    adapter = models.ForeignKey(Adapter, on_delete=models.CASCADE, related_name="liked_by")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["user", "adapter"], name="like_once"),
        ]

    def __str__(self) -> str:
        return f"{self.user_id} likes {self.adapter_id}"


class DownloadCount(models.Model):
    """Downloads of one adapter on one day; `Adapter.downloads` is the sum."""

    adapter = models.ForeignKey(Adapter, on_delete=models.CASCADE, related_name="download_days")
    day = models.DateField()
    count = models.PositiveIntegerField(default=0)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["adapter", "day"], name="download_day_unique"),
        ]

    def __str__(self) -> str:
        return f"{self.adapter_id} {self.day}: {self.count}"


class NewDownload(models.Model):
    """A download that is not counted yet; `services.add_up_downloads` takes it from here."""

    # No foreign key: it would lock the adapter's row for each download.
    adapter_id = models.BigIntegerField()
    day = models.DateField()

    def __str__(self) -> str:
        return f"{self.adapter_id} {self.day}"
