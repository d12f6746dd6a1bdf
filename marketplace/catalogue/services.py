"""Every write of the shelf that touches more than one row.

Both roads, upload and composition, end in `publish_revision`. Callers have validated the files
already (`composer.inspection`); what is checked here is what only the shelf knows: names, access,
immutability, lineage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from composer.examples import Example
from composer.inspection import AdapterSummary
from marketplace.accounts.models import User
from marketplace.blobs.models import Blob
from marketplace.catalogue.models import BaseModel, Revision


class PublishError(Exception):
    """A revision cannot be published; `problems` are sentences for the user, by field."""

    def __init__(self, problems: Mapping[str, Sequence[str]]) -> None:
        super().__init__("; ".join(text for texts in problems.values() for text in texts))
        self.problems = {name: list(texts) for name, texts in problems.items()}


@dataclass(frozen=True)
class CardFields:
    """What the owner says of the adapter; None keeps what the adapter has."""

    summary: str | None = None
    card: str | None = None  # Markdown without front matter
    licence: str | None = None
    task: str | None = None
    language: str | None = None
    prompt_format: str | None = None
    training_data: str | None = None
    tags: Sequence[str] | None = None
    samples: Sequence[Example] | None = None
    visibility: str | None = None


@dataclass(frozen=True)
class Parent:
    """A revision that went into a composition, with the signed weight found for it."""

    revision: Revision
    weight: float


@dataclass(frozen=True)
class NewRevision:
    """A validated tree of files, ready for the shelf."""

    owner: User
    name: str
    files: Mapping[str, Blob]  # path in the tree -> stored content
    summary: AdapterSummary
    base_model: BaseModel
    title: str
    origin: str  # Revision.Origin
    author: User | None = None  # the owner, unless told otherwise
    message: str = ""
    card: CardFields = field(default_factory=CardFields)
    parents: Sequence[Parent] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    kind: str | None = None  # Adapter.Kind; composed where there are parents
    job_key: UUID | None = None
    new_adapter_only: bool = False  # refuse where owner/name exists already


def publish_revision(new: NewRevision) -> Revision:
    """Put a validated revision on the shelf and return it, numbered and pointed at by main.

    Makes the adapter where it does not exist yet. Idempotent twice over: a `job_key` that was
    published already, or a tree equal to the head of main, returns the revision that is there.

    Raises:
        PublishError: with every problem by field: the name is taken or not allowed, too many files,
            a parent that the owner may not use, the owner's quota is used up.
    """
    raise NotImplementedError


def yank_revision(revision: Revision, *, by: User, reason: str) -> None:
    """Take a revision off the shelf; exact pins keep working. `latest` moves to the one before."""
    raise NotImplementedError
