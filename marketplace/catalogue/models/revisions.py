"""Immutable trees of files, the names that point at them, and what was composed of what."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models

from composer.inspection import AdapterSummary
from marketplace.blobs.models import Blob
from marketplace.catalogue.models.adapters import Adapter
from marketplace.catalogue.models.base_models import BaseModel
from marketplace.catalogue.querysets import RevisionQuerySet


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
