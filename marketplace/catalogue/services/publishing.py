"""The one door to the shelf: `publish_revision`.

Callers have validated the files already (`composer.inspection`); what is checked here is what only
the shelf knows: names, access, quota, licences of the parents, immutability, lineage.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import IntegrityError, OperationalError, transaction

from composer.inspection import AdapterSummary
from marketplace.accounts.models import User
from marketplace.accounts.names import validate_adapter_name
from marketplace.blobs.models import Blob
from marketplace.catalogue.licences import LicenceError, Licensed, derive_licence, find_conflicts
from marketplace.catalogue.models import (
    Adapter,
    AdapterAlias,
    BaseModel,
    Lineage,
    Ref,
    Revision,
)
from marketplace.catalogue.services.cards import CardFields, apply_card, check_card, is_storable
from marketplace.catalogue.services.errors import Problems, PublishError
from marketplace.catalogue.services.shelving import point_latest
from marketplace.catalogue.services.trees import (
    add_files,
    check_quota,
    facts_of,
    hashes_of,
    make_oid,
    next_number,
    read_tree,
)

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
    check_quota(new.owner, new.files.values(), problems)
    card = settle_licence(new.owner, new.parents, adapter, card, problems)
    problems.raise_if_any()
    if adapter is None:
        adapter = Adapter(owner=new.owner, name=new.name)
    head = _read_head(adapter)
    apply_card(adapter, card)
    if _is_on_shelf(head) and read_tree(head) == hashes_of(new.files):
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
        check_name_is_fresh(new.owner, new.name, problems)
        return None
    if adapter.deleted_at:
        problems.add("name", name_of_deleted(new.name))
    elif new.new_adapter_only:
        problems.add("name", f"You have an adapter called “{adapter.name}”. Choose another name.")
    elif adapter.revisions.filter(number__isnull=False).count() >= MAX_REVISIONS:
        problems.add(
            "name", f"{adapter.full_name} has {MAX_REVISIONS} versions. Publish under a new name."
        )
    return adapter


def name_of_deleted(name: str) -> str:
    """Say why the name of a deleted adapter stays unused."""
    return (
        f"“{name}” was the name of an adapter you deleted, and names are never given out "
        "again. Choose another name."
    )


def check_name_is_fresh(owner: User, name: str, problems: Problems) -> None:
    """Add a problem where an adapter had this address before it moved: old links lead to it."""
    alias = (
        AdapterAlias.objects.filter(full_name__iexact=f"{owner.username}/{name}")
        .select_related("adapter")
        .first()
    )
    if alias is not None:
        problems.add(
            "name",
            f"“{name}” was the name of {alias.adapter.full_name}, and old addresses still lead "
            "there. Choose another name.",
        )


def settle_licence(
    owner: User,
    parents: Sequence[Parent],
    adapter: Adapter | None,
    card: CardFields,
    problems: Problems,
) -> CardFields:
    """Give a composition its derived licence, or say why it can have none."""
    if not parents:
        return card
    licensed = _read_licensed(owner, parents)
    licence = card.licence or (adapter.licence if adapter else "")
    visibility = card.visibility or (adapter.visibility if adapter else Adapter.Visibility.PUBLIC)
    if visibility == Adapter.Visibility.PUBLIC and "licence" not in dict(problems):
        problems.add("licence", *find_conflicts(licensed, licence))
    if licence:
        return card
    derived = derive_licence(licensed)
    return CardFields(**{**vars(card), "licence": derived})


def _add_revision(adapter: Adapter, head: Revision | None, new: NewRevision) -> Revision:
    number = next_number(adapter)
    revision = Revision.objects.create(
        adapter=adapter,
        oid=make_oid(new.files, head),
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
        **facts_of(new.summary),
    )
    add_files(revision, new.files)
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


def _is_on_shelf(head: Revision | None) -> TypeGuard[Revision]:
    return head is not None and head.state == Revision.State.ACCEPTED and not head.is_yanked


def _read_head(adapter: Adapter) -> Revision | None:
    if not adapter.pk:
        return None
    ref = adapter.refs.filter(name=MAIN).select_related("revision").first()
    return ref.revision if ref else None


def _read_licensed(owner: User, parents: Sequence[Parent]) -> list[Licensed]:
    return [Licensed.of(parent.revision.adapter, composer_id=owner.pk) for parent in parents]
