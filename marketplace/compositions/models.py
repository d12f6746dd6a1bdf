"""Composition jobs: what was asked for, how far it is, what came out.

The row is the truth: a message in the queue only rings the bell. A worker holds a job by a lease
and a fencing token (`fence`); a worker writes only while the row still has its token, so one that
lost its lease changes nothing. States change only by compare-and-set.
"""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any, ClassVar

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils import timezone

from marketplace.blobs.models import Blob
from marketplace.catalogue.models import BaseModel, PromptFormat, Revision
from marketplace.compositions.optimizers import DEFAULT_BUDGET, GRADIENT
from marketplace.compositions.querysets import JobQuerySet


class CompositionJob(models.Model):
    """One composition, from the request to the published revision."""

    class State(models.TextChoices):
        """Where it stands."""

        QUEUED = "queued", "queued"
        RUNNING = "running", "running"
        SUCCEEDED = "succeeded", "succeeded"
        FAILED = "failed", "failed"
        CANCELLED = "cancelled", "cancelled"

    class Selection(models.TextChoices):
        """How candidates are picked from the pool."""

        SCREENED = "screened", "Screened search"
        SIMILAR = "similar", "By similarity"
        RANDOM = "random", "At random"
        ALL = "all", "All of them"

    class MergeMethod(models.TextChoices):
        """How weighted adapters become one; the names are composer's."""

        CONCAT = "concat", "concat: exact, ranks add up"
        SVD = "svd", "svd: compressed to a chosen rank"
        FACTOR = "factor", "factor: LoraHub's formula"

    class Dtype(models.TextChoices):
        """The number format of the search."""

        AUTO = "auto", "what is fastest here"
        FLOAT32 = "float32", "float32"
        BFLOAT16 = "bfloat16", "bfloat16"

    TERMINAL: ClassVar = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    number = models.PositiveIntegerField(editable=False, help_text="Counts the owner's jobs")
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="composition_jobs"
    )
    title = models.CharField(max_length=120, blank=True)
    base_model = models.ForeignKey(
        BaseModel, on_delete=models.PROTECT, related_name="composition_jobs"
    )
    # What was asked for.
    pick_for_me = models.BooleanField(default=False)
    selection = models.CharField(max_length=10, choices=Selection, default=Selection.SCREENED)
    n_candidates = models.PositiveSmallIntegerField(
        default=8, validators=[MinValueValidator(1), MaxValueValidator(64)]
    )
    merge_method = models.CharField(max_length=8, choices=MergeMethod, default=MergeMethod.CONCAT)
    svd_rank = models.PositiveSmallIntegerField(null=True, blank=True)
    optimizer = models.CharField(max_length=60)
    weight_blocks = models.PositiveSmallIntegerField(
        default=1,
        validators=[MinValueValidator(1), MaxValueValidator(16)],
        help_text="With gradient: so many blocks of layers have weights of their own",
    )
    quick_lora = models.BooleanField(
        default=False, help_text="Train a LoRA on the fit rows, with gradients, and let it join"
    )
    budget = models.PositiveIntegerField(
        default=DEFAULT_BUDGET, validators=[MinValueValidator(1), MaxValueValidator(500)]
    )
    seed = models.PositiveIntegerField(default=42)
    weight_bound = models.FloatField(
        default=1.5, validators=[MinValueValidator(0.1), MaxValueValidator(10)]
    )
    l1_penalty = models.FloatField(
        default=0.05, validators=[MinValueValidator(0), MaxValueValidator(10)]
    )
    dtype = models.CharField(max_length=10, choices=Dtype, default=Dtype.AUTO)
    prompt_format = models.CharField(max_length=8, choices=PromptFormat, default=PromptFormat.PLAIN)
    instruction = models.TextField(blank=True, max_length=2000)
    prompting = models.BooleanField(default=False, help_text="Also try the rows as a prompt")
    hand_weights = models.JSONField(null=True, blank=True, help_text="Name to weight: no search")
    # Where it stands; only `services` and `runner` change these.
    state = models.CharField(max_length=10, choices=State, default=State.QUEUED)
    fence = models.PositiveIntegerField(default=0, help_text="Grows with every claim")
    attempts = models.PositiveSmallIntegerField(default=0)
    lease_expires_at = models.DateTimeField(null=True, blank=True)
    sent_at = models.DateTimeField(null=True, blank=True, help_text="Last message to the queue")
    cancel_requested = models.BooleanField(default=False)
    worker = models.CharField(max_length=120, blank=True)
    phase = models.CharField(max_length=12, blank=True)
    phase_done = models.PositiveIntegerField(default=0)
    phase_total = models.PositiveIntegerField(null=True, blank=True)
    phase_started_at = models.DateTimeField(null=True, blank=True)
    base_loss = models.FloatField(null=True, blank=True, help_text="On the fit rows")
    best_single_loss = models.FloatField(null=True, blank=True)
    uniform_loss = models.FloatField(null=True, blank=True)
    best_loss = models.FloatField(null=True, blank=True)
    error_code = models.CharField(max_length=40, blank=True)
    error = models.TextField(blank=True)
    error_fix = models.TextField(blank=True)
    # What came out.
    optimizer_resolved = models.CharField(max_length=120, blank=True)
    evaluations_spent = models.PositiveIntegerField(default=0)
    report = models.JSONField(null=True, blank=True)
    recipe = models.JSONField(null=True, blank=True)
    card = models.TextField(blank=True)
    summary_json = models.JSONField(null=True, blank=True)
    svd_error = models.FloatField(null=True, blank=True)
    peak_memory = models.BigIntegerField(
        null=True, blank=True, help_text="Bytes the worker held at most while it ran"
    )
    published = models.ForeignKey(
        Revision, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    # How it came to be.
    idempotency_key = models.CharField(max_length=100, blank=True)
    cloned_from = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.SET_NULL, related_name="clones"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = JobQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["-created_at"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["owner", "idempotency_key"],
                condition=~models.Q(idempotency_key=""),
                name="job_idempotency_key_unique",
            ),
            models.UniqueConstraint(fields=["owner", "number"], name="job_number_unique"),
            models.CheckConstraint(
                condition=models.Q(budget__gte=1), name="job_budget_at_least_one"
            ),
            models.CheckConstraint(
                condition=~models.Q(state="running") | models.Q(lease_expires_at__isnull=False),
                name="job_running_has_lease",
            ),
            models.CheckConstraint(
                condition=models.Q(state__in=["queued", "running"])
                | models.Q(finished_at__isnull=False),
                name="job_ended_has_time",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["owner", "-created_at"], name="job_list"),
            models.Index(
                fields=["state", "created_at"],
                condition=models.Q(state__in=["queued", "running"]),
                name="job_active",
            ),  # claimable, quotas, position
        ]

    def __str__(self) -> str:
        return f"Job {self.number}"

    def get_absolute_url(self) -> str:
        """The job's page."""
        return f"/jobs/{self.pk}"

    @property
    def channel(self) -> str:
        """Where `live` tells of it."""
        return f"job:{self.pk}"

    @property
    def is_finished(self) -> bool:
        """Whether its state is final."""
        return self.state in self.TERMINAL

    @property
    def is_searched(self) -> bool:
        """Whether weights are searched for, not set by hand."""
        return self.hand_weights is None

    @property
    def uses_gradients(self) -> bool:
        """Whether something is trained by back-propagation, which is never done unasked."""
        return self.quick_lora or (self.is_searched and self.optimizer == GRADIENT)

    @property
    def took(self) -> timedelta | None:
        """From the first claim to the end."""
        if self.started_at is None or self.finished_at is None:
            return None
        return self.finished_at - self.started_at

    def move(self, *, frm: str | frozenset[str], to: str, **changes: Any) -> bool:
        """Change the state if it is still what the caller saw; say whether it was."""
        allowed = frm if isinstance(frm, frozenset) else {frm}
        if to in self.TERMINAL:
            changes.setdefault("finished_at", timezone.now())
            changes.setdefault("lease_expires_at", None)
        moved = type(self).objects.filter(pk=self.pk, state__in=allowed).update(state=to, **changes)
        if moved:
            self.state = to
            for name, value in changes.items():
                setattr(self, name, value)
        return moved == 1


class Ingredient(models.Model):
    """A pinned revision in a job's pool, and what screening and search said of it."""

    job = models.ForeignKey(CompositionJob, on_delete=models.CASCADE, related_name="ingredients")
    revision = models.ForeignKey(Revision, on_delete=models.PROTECT, related_name="+")
    position = models.PositiveSmallIntegerField()
    name = models.CharField(max_length=200, help_text="owner/name at the time")
    screening_loss = models.FloatField(null=True, blank=True)
    is_candidate = models.BooleanField(default=False)
    weight = models.FloatField(null=True, blank=True)

    class Meta:
        ordering: ClassVar = ["position"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["job", "revision"], name="ingredient_unique"),
            models.UniqueConstraint(fields=["job", "position"], name="ingredient_position"),
        ]

    def __str__(self) -> str:
        return self.name


class Example(models.Model):
    """A row of the user's task; the inputs are as the model reads them, instruction included."""

    class Split(models.TextChoices):
        """What the row is for."""

        FIT = "fit", "fit"
        HELD_OUT = "held_out", "held-out"

    job = models.ForeignKey(CompositionJob, on_delete=models.CASCADE, related_name="examples")
    position = models.PositiveSmallIntegerField()
    input = models.TextField()
    output = models.TextField()
    split = models.CharField(max_length=8, choices=Split)

    class Meta:
        ordering: ClassVar = ["position"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["job", "position"], name="example_position"),
        ]

    def __str__(self) -> str:
        return f"row {self.position + 1}"


class Evaluation(models.Model):
    """One scoring of a weight vector; number 0 is the base alone."""

    job = models.ForeignKey(CompositionJob, on_delete=models.CASCADE, related_name="evaluations")
    number = models.PositiveIntegerField()
    weights = models.JSONField()
    loss = models.FloatField(help_text="Penalty included")
    fit_loss = models.FloatField()
    is_best = models.BooleanField(default=False)

    class Meta:
        ordering: ClassVar = ["number"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["job", "number"], name="evaluation_number"),
        ]

    def __str__(self) -> str:
        return f"evaluation {self.number}: {self.fit_loss:.3f}"


class LogLine(models.Model):
    """A remark of the worker on its work."""

    job = models.ForeignKey(CompositionJob, on_delete=models.CASCADE, related_name="log")
    text = models.CharField(max_length=500)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering: ClassVar = ["id"]

    def __str__(self) -> str:
        return self.text


class ResultFile(models.Model):
    """A file of the composed adapter."""

    job = models.ForeignKey(CompositionJob, on_delete=models.CASCADE, related_name="results")
    path = models.CharField(max_length=128)
    blob = models.ForeignKey(Blob, on_delete=models.PROTECT, related_name="+")

    class Meta:
        ordering: ClassVar = ["path"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["job", "path"], name="result_path_unique"),
        ]

    def __str__(self) -> str:
        return self.path
