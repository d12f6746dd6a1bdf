"""Drafts of uploads, and the jobs that fetch adapters from other hubs or push them there.

A draft is its owner's alone; nothing of it exists for anyone else before it is published. The files
themselves are in `quarantine`, and every write that touches more than one row is in `services`.
A job's row is the truth and the message in the queue only rings the bell; see `holding`.
"""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.utils import timezone

from composer.errors import Problem
from composer.inspection import AdapterSummary
from marketplace.accounts.names import MAX_NAME_LENGTH
from marketplace.catalogue.models import Adapter, BaseModel, PromptFormat, Revision
from marketplace.uploads.querysets import TransferQuerySet, UploadQuerySet

# A check that takes longer than this died with its web process and may be started again.
CHECK_GRACE_SECONDS = 20


class Upload(models.Model):
    """One draft: from the first byte received to the revision that was made of it."""

    class State(models.TextChoices):
        """Where the draft stands; only `move` changes it."""

        RECEIVING = "receiving", "receiving files"
        VALIDATING = "validating", "being checked"
        REFUSED = "refused", "refused"
        READY = "ready", "ready to publish"
        PUBLISHED = "published", "published"

    TERMINAL: ClassVar = frozenset({State.PUBLISHED})

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="uploads"
    )
    state = models.CharField(max_length=12, choices=State, default=State.RECEIVING)
    # What the check said. `base_model` is the one it was checked against or, before that, chosen.
    problems = models.JSONField(default=list, blank=True)
    summary_json = models.JSONField(null=True, blank=True)
    base_model = models.ForeignKey(
        BaseModel, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    base_chosen = models.BooleanField(
        default=False, help_text="By the owner, and so stronger than what the config names."
    )
    fitting_bases = models.JSONField(
        default=list, blank=True, help_text="Names of other bases that the weights fit."
    )
    checked_at = models.DateTimeField(null=True, blank=True)
    # The card as far as it is written; the fields are those of `catalogue.Adapter`.
    name = models.CharField(max_length=MAX_NAME_LENGTH, blank=True)
    summary = models.CharField(max_length=200, blank=True)
    card = models.TextField(blank=True)
    licence = models.CharField(max_length=200, blank=True)
    task = models.CharField(max_length=60, blank=True)
    language = models.CharField(max_length=20, blank=True)
    prompt_format = models.CharField(max_length=8, choices=PromptFormat, default=PromptFormat.PLAIN)
    training_data = models.CharField(max_length=300, blank=True)
    tags = models.JSONField(default=list, blank=True)
    samples = models.TextField(blank=True, help_text="As typed: input => output lines, or JSONL.")
    visibility = models.CharField(
        max_length=8, choices=Adapter.Visibility, default=Adapter.Visibility.PUBLIC
    )
    revision = models.ForeignKey(
        Revision, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = UploadQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["-updated_at"]
        indexes: ClassVar = [
            models.Index(fields=["owner", "-updated_at"], name="upload_drafts"),
            models.Index(fields=["state", "updated_at"], name="upload_clean_up"),
        ]

    def __str__(self) -> str:
        return self.name or f"draft {str(self.pk)[:8]}"

    def get_absolute_url(self) -> str:
        """The draft's page."""
        return f"/upload/{self.pk}"

    def move(self, *, frm: str | frozenset[str], to: str, **changes: Any) -> bool:
        """Change the state if it is still what the caller saw; say whether it was."""
        allowed = frm if isinstance(frm, frozenset) else {frm}
        now = timezone.now()
        moved = (
            type(self)
            .objects.filter(pk=self.pk, state__in=allowed)
            .update(state=to, updated_at=now, **changes)
        )
        if moved:
            self.state, self.updated_at = to, now
            for name, value in changes.items():
                setattr(self, name, value)
        return moved == 1

    @property
    def is_open(self) -> bool:
        """Whether files and card can still be changed."""
        return self.state not in self.TERMINAL

    @property
    def check_is_stale(self) -> bool:
        """Whether the check was cut off by a restart of the site."""
        patience = timedelta(seconds=settings.VALIDATION_SECONDS + CHECK_GRACE_SECONDS)
        return self.state == self.State.VALIDATING and self.updated_at < timezone.now() - patience

    @property
    def adapter_summary(self) -> AdapterSummary | None:
        """What inspection read from the files."""
        return AdapterSummary.from_dict(self.summary_json) if self.summary_json else None

    @property
    def found_problems(self) -> list[Problem]:
        """Every reason against the files."""
        return [Problem.from_dict(problem) for problem in self.problems]


class UploadedFile(models.Model):
    """One file of a draft, received in part or in whole; its bytes lie in quarantine."""

    upload = models.ForeignKey(Upload, on_delete=models.CASCADE, related_name="files")
    path = models.CharField(max_length=128)
    reserved = models.BigIntegerField(
        default=0, help_text="Bytes of the owner's quota that this file holds."
    )
    received = models.BigIntegerField(default=0)
    sha256 = models.CharField(max_length=64, blank=True, help_text="Once complete.")
    complete = models.BooleanField(default=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering: ClassVar = ["path"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["upload", "path"], name="uploaded_path_unique"),
            models.CheckConstraint(
                condition=models.Q(received__gte=0) & models.Q(reserved__gte=0),
                name="uploaded_sizes_not_negative",
            ),
        ]

    def __str__(self) -> str:
        return self.path


class Transfer(models.Model):
    """A job between this site and another hub: one adapter, in or out."""

    class State(models.TextChoices):
        """Where it stands."""

        QUEUED = "queued", "queued"
        RUNNING = "running", "running"
        SUCCEEDED = "succeeded", "succeeded"
        FAILED = "failed", "failed"
        CANCELLED = "cancelled", "cancelled"

    TERMINAL: ClassVar = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="%(class)ss"
    )
    hub = models.CharField(max_length=200, help_text="Scheme, host and port of the other hub")
    repo_id = models.CharField(max_length=200, help_text="owner/name there")
    commit = models.CharField(max_length=40, blank=True, help_text="What was read or made there")
    sealed_token = models.TextField(
        blank=True, editable=False, help_text="See `sealing`; empty as soon as the job has ended"
    )
    # Where it stands; only `services`, `holding` and `runner` change these.
    state = models.CharField(max_length=10, choices=State, default=State.QUEUED)
    fence = models.PositiveIntegerField(default=0, help_text="Grows with every claim")
    attempts = models.PositiveSmallIntegerField(default=0)
    lease_expires_at = models.DateTimeField(null=True, blank=True)
    sent_at = models.DateTimeField(null=True, blank=True, help_text="Last message to the queue")
    cancel_requested = models.BooleanField(default=False)
    worker = models.CharField(max_length=120, blank=True)
    phase = models.CharField(max_length=12, blank=True)
    bytes_done = models.BigIntegerField(default=0)
    bytes_total = models.BigIntegerField(null=True, blank=True)
    error_code = models.CharField(max_length=40, blank=True)
    error = models.TextField(blank=True)
    error_fix = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = TransferQuerySet.as_manager()

    class Meta:
        abstract = True
        ordering: ClassVar = ["-created_at"]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=~models.Q(state="running") | models.Q(lease_expires_at__isnull=False),
                name="%(class)s_running_has_lease",
            ),
            models.CheckConstraint(
                condition=models.Q(state__in=["queued", "running"])
                | models.Q(finished_at__isnull=False, sealed_token=""),
                name="%(class)s_ended_keeps_no_token",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["owner", "-created_at"], name="%(class)s_list"),
            models.Index(
                fields=["state", "created_at"],
                condition=models.Q(state__in=["queued", "running"]),
                name="%(class)s_active",
            ),
        ]

    def __str__(self) -> str:
        return f"{self._meta.verbose_name} of {self.repo_id}"

    def get_absolute_url(self) -> str:
        """The job's page."""
        return f"/{self._meta.model_name}s/{self.pk}"

    @property
    def channel(self) -> str:
        """Where `live` tells of it."""
        return f"{self._meta.model_name}:{self.pk}"

    @property
    def is_finished(self) -> bool:
        """Whether its state is final."""
        return self.state in self.TERMINAL

    @property
    def place(self) -> str:
        """The repository's page on the other hub."""
        return f"{self.hub}/{self.repo_id}"

    @property
    def percent(self) -> int:
        """How much of the bytes has gone through, 0 where their number is not known."""
        return min(100, 100 * self.bytes_done // self.bytes_total) if self.bytes_total else 0

    def move(self, *, frm: str | frozenset[str], to: str, **changes: Any) -> bool:
        """Change the state if it is still what the caller saw; an ended job loses its token."""
        allowed = frm if isinstance(frm, frozenset) else {frm}
        if to in self.TERMINAL:
            changes |= {"sealed_token": "", "lease_expires_at": None, "phase": ""}
            changes.setdefault("finished_at", timezone.now())
        manager: Any = type(self)._default_manager
        moved = manager.filter(pk=self.pk, state__in=allowed).update(state=to, **changes)
        if moved:
            self.state = to
            for name, value in changes.items():
                setattr(self, name, value)
        return bool(moved == 1)


class Import(Transfer):
    """An adapter that comes from another hub: fetched into a draft, checked and published."""

    asked_revision = models.CharField(max_length=200, help_text="Branch, tag or commit there")
    name = models.CharField(max_length=MAX_NAME_LENGTH, help_text="The adapter's name here")
    visibility = models.CharField(
        max_length=8, blank=True, choices=Adapter.Visibility,
        help_text="Empty keeps what the adapter has; a new one is private",
    )  # fmt: skip
    base_model = models.ForeignKey(
        BaseModel, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    provenance = models.JSONField(default=dict, blank=True)
    upload = models.OneToOneField(
        Upload, null=True, blank=True, on_delete=models.SET_NULL, related_name="imported_by"
    )
    revision = models.ForeignKey(
        Revision, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )


class Export(Transfer):
    """A revision that is pushed to another hub with a token of the owner's for it."""

    revision = models.ForeignKey(Revision, on_delete=models.CASCADE, related_name="exports")
    private = models.BooleanField(default=True)
    commit_url = models.CharField(max_length=500, blank=True)
