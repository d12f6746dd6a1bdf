"""The language models that adapters are made for."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from marketplace.catalogue.querysets import BaseModelQuerySet


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
