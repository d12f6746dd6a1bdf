"""The one door to the shelf: `publish_revision`.

Callers have validated the files already (`composer.inspection`); what is checked here is what only
the shelf knows: names, access, quota, licences of the parents, immutability, lineage.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import IntegrityError, OperationalError, transaction
from django.db.models import Max, Sum
from django.utils import timezone

from composer.inspection import AdapterSummary
from marketplace.accounts.models import User
from marketplace.accounts.names import validate_adapter_name
from marketplace.blobs.models import Blob
from marketplace.catalogue.licences import LicenceError, Licensed, derive_licence, find_conflicts
from marketplace.catalogue.models import (
    Adapter,
    BaseModel,
    Lineage,
    Ref,
    Revision,
    RevisionFile,
)
from marketplace.catalogue.services.cards import CardFields, apply_card, check_card, is_storable
from marketplace.catalogue.services.errors import Problems, PublishError
from marketplace.catalogue.services.shelving import point_latest

MAIN = "main"
MAX_REVISIONS = 200
MAX_TITLE = 200
MAX_PARENTS = 32
REQUIRED_FILES = ("adapter_config.json", "adapter_model.safetensors")
_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._ +-]*(/[A-Za-z0-9_][A-Za-z0-9._ +-]*)*\Z")
_MAX_PATH = 128
_ATTEMPTS = 3


@dataclass(frozen=True)
class Parent:
    """A revision that went into a composition, with the signed weight found for it."""

    revision: Revision
    weight: float


@dataclass(frozen=True)
class NewRevision:
    """A validated tree of files, ready for the shelf.

    `provenance` is shown on the adapter's page: {"report": Report.to_dict(), "recipe": {...},
    "job": id, "merge_method": ...} of a composition, {"source": url, "revision": id} of an import.
    """

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
    base_loss: float | None = None  # mean loss of the base alone on the adapter's samples
    adapter_loss: float | None = None  # and with the adapter


def publish_revision(new: NewRevision) -> Revision:
    """Put a validated revision on the shelf and return it, numbered and pointed at by main.

    Makes the adapter where it does not exist yet. Idempotent twice over: a `job_key` that was
    published already, or a tree equal to the head of main, returns the revision that is there.
    A composition without a licence of its own gets the one derived from its parents.

    Raises:
        PublishError: with every problem by field: the name is taken or not allowed, too many files,
            a parent that the owner may not use, the owner's quota is used up.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with transaction.atomic():
                return _publish(new)
        except (IntegrityError, OperationalError):
            # Another publication came between, or the database broke off a deadlock: look again.
            if attempt == _ATTEMPTS:
                raise
    raise AssertionError  # pragma: no cover - the loop returns or raises


def read_used_bytes(owner: User) -> int:
    """Return what counts against the owner's quota: each content once, however often it is used."""
    return _sum_sizes(Blob.objects.filter(uses__revision__adapter__owner=owner))


def find_licence_problems(owner: User, parents: Sequence[Parent], licence: str) -> list[str]:
    """Return why a composition of these parents may not be published under this licence.

    An empty licence asks whether any would do. Forms call it before there is anything to publish.
    """
    try:
        return find_conflicts(_read_licensed(owner, parents), licence)
    except LicenceError as error:
        return [str(error)]


def _publish(new: NewRevision) -> Revision:
    # The owner's row is the lock: it makes quota, names and numbers of one owner safe together.
    User.objects.select_for_update(no_key=True).get(pk=new.owner.pk)
    published = _find_published_job(new)
    if published:
        return published
    problems = Problems()
    card = check_card(new.card, problems)
    _check_files(new, problems)
    _check_words(new, problems)
    _check_parents(new, problems)
    adapter = _find_adapter(new, problems)
    _check_quota(new, problems)
    card = _settle_licence(new, adapter, card, problems)
    problems.raise_if_any()
    if adapter is None:
        adapter = Adapter(owner=new.owner, name=new.name)
    head = _read_head(adapter)
    apply_card(adapter, card)
    if head and not head.is_yanked and _read_tree(head) == _tree_of(new):
        return head
    return _add_revision(adapter, head, new)


def _find_published_job(new: NewRevision) -> Revision | None:
    if new.job_key is None:
        return None
    found = Revision.objects.filter(job_key=new.job_key).select_related("adapter").first()
    if found and found.adapter.owner_id != new.owner.pk:
        raise PublishError({"": ["This job belongs to somebody else."]})
    return found


def _check_files(new: NewRevision, problems: Problems) -> None:
    if len(new.files) > settings.MAX_FILES_PER_REVISION:
        problems.add(
            "files",
            f"An adapter has at most {settings.MAX_FILES_PER_REVISION} files; "
            f"these are {len(new.files)}. Leave out what peft does not need.",
        )
    for path in sorted(new.files):
        if len(path) > _MAX_PATH or not _PATH.match(path):
            problems.add(
                "files",
                f"“{path[:60]}” is no file name we can keep. Use letters, digits, “.”, “_” and "
                f"“-”, at most {_MAX_PATH} characters.",
            )
    problems.add(
        "files", *(f"{name} is missing." for name in REQUIRED_FILES if name not in new.files)
    )


def _check_words(new: NewRevision, problems: Problems) -> None:
    if len(new.title) > MAX_TITLE:
        problems.add("title", f"At most {MAX_TITLE} characters; this has {len(new.title)}.")
    if not is_storable(new.title + new.message):
        problems.add("title", "This holds characters that cannot be stored. Type it anew.")
    try:
        validate_adapter_name(new.name)
    except ValidationError as error:
        problems.add("name", *error.messages)


def _check_parents(new: NewRevision, problems: Problems) -> None:
    if len(new.parents) > MAX_PARENTS:
        problems.add("parents", f"At most {MAX_PARENTS} parents; these are {len(new.parents)}.")
    wanted = {parent.revision.pk for parent in new.parents}
    if len(wanted) < len(new.parents):
        problems.add("parents", "One parent appears twice. Add up its weights.")
    usable = Revision.objects.visible_to(new.owner).accepted()
    allowed = set(usable.filter(pk__in=wanted).values_list("pk", flat=True))
    for parent in new.parents:
        if parent.revision.pk not in allowed:
            problems.add(
                "parents",
                f"{parent.revision.adapter.full_name} is no longer available to you. "
                "Compose again without it, or ask its owner.",
            )


def _find_adapter(new: NewRevision, problems: Problems) -> Adapter | None:
    adapter = (
        Adapter.objects.select_for_update(no_key=True, of=("self",))
        .filter(owner=new.owner, name__iexact=new.name)
        .first()
    )
    if adapter is None:
        return None
    if adapter.deleted_at:
        problems.add(
            "name",
            f"“{new.name}” was the name of an adapter you deleted, and names are never given out "
            "again. Choose another name.",
        )
    elif new.new_adapter_only:
        problems.add("name", f"You have an adapter called “{adapter.name}”. Choose another name.")
    elif adapter.revisions.count() >= MAX_REVISIONS:
        problems.add(
            "name", f"{adapter.full_name} has {MAX_REVISIONS} versions. Publish under a new name."
        )
    return adapter


def _check_quota(new: NewRevision, problems: Problems) -> None:
    used = read_used_bytes(new.owner)
    hashes = {blob.pk for blob in new.files.values()}
    fresh = Blob.objects.filter(pk__in=hashes).exclude(uses__revision__adapter__owner=new.owner)
    needed = _sum_sizes(fresh)
    if needed and used + needed > settings.USER_QUOTA_BYTES:
        problems.add(
            "files",
            f"Your {_megabytes(settings.USER_QUOTA_BYTES)} of space would be exceeded: "
            f"{_megabytes(used)} are used and this needs {_megabytes(needed)}. "
            "Delete an adapter or ask the administrator for more.",
        )


def _settle_licence(
    new: NewRevision, adapter: Adapter | None, card: CardFields, problems: Problems
) -> CardFields:
    """Give a composition its derived licence, or say why it can have none."""
    if not new.parents:
        return card
    parents = _read_licensed(new.owner, new.parents)
    licence = card.licence or (adapter.licence if adapter else "")
    visibility = card.visibility or (adapter.visibility if adapter else Adapter.Visibility.PUBLIC)
    if visibility == Adapter.Visibility.PUBLIC and "licence" not in dict(problems):
        problems.add("licence", *find_conflicts(parents, licence))
    if licence:
        return card
    derived = derive_licence(parents)
    return CardFields(**{**vars(card), "licence": derived})


def _add_revision(adapter: Adapter, head: Revision | None, new: NewRevision) -> Revision:
    numbers = Revision.objects.filter(adapter=adapter).aggregate(highest=Max("number"))
    number = (numbers["highest"] or 0) + 1
    revision = Revision.objects.create(
        adapter=adapter,
        oid=_make_oid(new, head),
        parent=head,
        number=number,
        author=new.author or new.owner,
        title=new.title.strip() or f"Publish v{number}",
        message=new.message,
        state=Revision.State.ACCEPTED,
        origin=new.origin,
        provenance=dict(new.provenance),
        base_model=new.base_model,
        job_key=new.job_key,
        **_facts_of(new.summary),
    )
    RevisionFile.objects.bulk_create(
        RevisionFile(revision=revision, path=path, blob=blob)
        for path, blob in sorted(new.files.items())
    )
    Lineage.objects.bulk_create(
        Lineage(child=revision, parent=edge.revision, position=position, weight=edge.weight)
        for position, edge in enumerate(new.parents)
    )
    Ref.objects.update_or_create(
        adapter=adapter, name=MAIN, defaults={"kind": Ref.Kind.BRANCH, "revision": revision}
    )
    composed = Adapter.Kind.COMPOSED if new.parents else Adapter.Kind.TRAINED
    adapter.kind = new.kind or composed
    adapter.base_loss, adapter.adapter_loss = new.base_loss, new.adapter_loss
    point_latest(adapter)
    return revision


def _facts_of(summary: AdapterSummary) -> dict[str, Any]:
    targets = sorted(summary.target_modules)
    return {
        "summary_json": summary.to_dict(),
        "rank": summary.rank,
        "alpha": summary.alpha,
        "target_modules": targets,
        "targets_key": ", ".join(targets)[:300],
        "dtype": summary.dtype,
        "parameter_count": summary.parameter_count,
        "weights_size": summary.weights_size,
        "weights_sha256": summary.weights_sha256,
    }


def _read_head(adapter: Adapter) -> Revision | None:
    if not adapter.pk:
        return None
    ref = adapter.refs.filter(name=MAIN).select_related("revision").first()
    return ref.revision if ref else None


def _read_tree(revision: Revision) -> dict[str, str]:
    return dict(revision.files.values_list("path", "blob_id"))


def _tree_of(new: NewRevision) -> dict[str, str]:
    return {path: blob.pk for path, blob in new.files.items()}


def _make_oid(new: NewRevision, head: Revision | None) -> str:
    """Forty hex digits, like a commit's: the tree, what came before, the moment, and chance."""
    digest = hashlib.sha1(usedforsecurity=False)
    for path, sha256 in sorted(_tree_of(new).items()):
        digest.update(f"{sha256} {path}\n".encode())
    digest.update(f"parent {head.oid if head else ''}\n".encode())
    digest.update(f"time {timezone.now().isoformat()} {uuid.uuid4()}".encode())
    return digest.hexdigest()


def _read_licensed(owner: User, parents: Sequence[Parent]) -> list[Licensed]:
    return [Licensed.of(parent.revision.adapter, composer_id=owner.pk) for parent in parents]


def _sum_sizes(blobs: Any) -> int:
    """Add up sizes without counting a blob once for each of its uses."""
    distinct = Blob.objects.filter(pk__in=blobs.values("pk"))
    return int(distinct.aggregate(total=Sum("size"))["total"] or 0)


def _megabytes(size: int) -> str:
    return f"{size / 1_000_000:,.1f} MB"
