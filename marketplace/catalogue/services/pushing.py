"""The shelf's other door: revisions that come as commits on a branch, whole ones and drafts.

Callers have made the tree and had it validated if it is a whole adapter; what is not whole becomes
a draft that its owner alone sees. What belongs to the weights stays with them: a commit that leaves
them alone keeps their lineage, report and losses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import transaction

from composer.inspection import AdapterSummary
from marketplace.accounts.models import User
from marketplace.blobs.models import Blob
from marketplace.catalogue.models import Adapter, BaseModel, Lineage, Ref, Revision
from marketplace.catalogue.services.cards import CardFields, apply_card, check_card
from marketplace.catalogue.services.errors import CatalogueError, Problems
from marketplace.catalogue.services.publishing import (
    MAIN,
    MAX_REVISIONS,
    MAX_TITLE,
    Parent,
    settle_licence,
)
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

MAX_COMMITS = 2000
MAX_TREE_FILES = 1000


@dataclass(frozen=True)
class Push:
    """A tree that is to be the new head of a branch, made from the head `onto`.

    With `summary` and `base_model` it is a whole, validated adapter; without them a draft.
    """

    adapter: Adapter
    branch: str
    onto: Revision
    files: Mapping[str, Blob]
    author: User
    title: str
    message: str = ""
    summary: AdapterSummary | None = None
    base_model: BaseModel | None = None
    card: CardFields = field(default_factory=CardFields)


class HeadMoved(CatalogueError):
    """Another commit came between: make the tree anew from the head there is now."""

    def __init__(self) -> None:
        super().__init__({"": ["The branch has moved on. Fetch it and try again."]})


class Gone(CatalogueError):
    """The adapter or the branch was deleted in the meantime."""

    def __init__(self) -> None:
        super().__init__({"": ["The adapter or the branch does not exist any more."]})


def read_head(adapter: Adapter, branch: str) -> Revision | None:
    """Return the newest revision of a branch that is not yanked, drafts included; else None."""
    ref = adapter.refs.filter(name=branch, kind=Ref.Kind.BRANCH).select_related("revision").first()
    head = ref.revision if ref else None
    while head is not None and head.is_yanked and head.parent is not None:
        head = head.parent
    return head


def push_revision(push: Push) -> Revision:
    """Put a commit on its branch and return its revision.

    A whole adapter on main gets the next number and brings its card; on another branch it is
    accepted without a number. A tree equal to the head's returns the head.

    Raises:
        HeadMoved: the branch's head is not the one that the tree was made from.
        Gone: the adapter or the branch was deleted.
        PublishError: with every problem: quota, number of files or commits, licences of parents.
    """
    with transaction.atomic():
        # The owner's row is the lock, as in `publish_revision`.
        User.objects.select_for_update(no_key=True).get(pk=push.adapter.owner_id)
        adapter = (
            Adapter.objects.select_for_update(no_key=True, of=("self",))
            .select_related("owner")
            .filter(pk=push.adapter.pk, deleted_at__isnull=True)
            .first()
        )
        head = read_head(adapter, push.branch) if adapter else None
        if adapter is None or head is None:
            raise Gone
        if head.pk != push.onto.pk:
            raise HeadMoved
        if read_tree(head) == hashes_of(push.files):
            return head
        return _push(adapter, head, push)


def _push(adapter: Adapter, head: Revision, push: Push) -> Revision:
    problems = Problems()
    card = check_card(push.card, problems)
    _check_counts(adapter, push, problems)
    check_quota(adapter.owner, push.files.values(), problems)
    kept = _find_kept(head, push)
    parents = _parents_of(kept)
    if push.branch == MAIN and push.summary:
        card = settle_licence(adapter.owner, parents, adapter, card, problems)
    problems.raise_if_any()
    revision = _add_revision(adapter, head, push, kept)
    Lineage.objects.bulk_create(
        Lineage(child=revision, parent=edge.revision, position=position, weight=edge.weight)
        for position, edge in enumerate(parents)
    )
    Ref.objects.filter(adapter=adapter, name=push.branch).update(revision=revision)
    if revision.number is not None:
        apply_card(adapter, card)
        if kept is None:
            adapter.kind = Adapter.Kind.TRAINED
            adapter.base_loss = adapter.adapter_loss = None
        point_latest(adapter)
    return revision


def _check_counts(adapter: Adapter, push: Push, problems: Problems) -> None:
    if len(push.files) > MAX_TREE_FILES:
        problems.add(
            "files",
            f"A repository has at most {MAX_TREE_FILES} files; this would have "
            f"{len(push.files)}. Leave out what peft does not need.",
        )
    if adapter.revisions.filter(number__isnull=False).count() >= MAX_REVISIONS:
        problems.add(
            "", f"{adapter.full_name} has {MAX_REVISIONS} versions. Publish under a new name."
        )
    if adapter.revisions.count() >= MAX_COMMITS:
        problems.add(
            "", f"{adapter.full_name} has {MAX_COMMITS} commits. Publish under a new name."
        )


def _find_kept(head: Revision, push: Push) -> Revision | None:
    """Return the newest accepted revision before this one, if it has the same weights."""
    before: Revision | None = head
    while before is not None and before.state != Revision.State.ACCEPTED:
        before = before.parent
    same = before and push.summary and before.weights_sha256 == push.summary.weights_sha256
    return before if same else None


def _parents_of(kept: Revision | None) -> Sequence[Parent]:
    if kept is None:
        return ()
    edges = kept.parents.select_related("parent__adapter").order_by("position")
    return [Parent(edge.parent, edge.weight) for edge in edges]


def _add_revision(adapter: Adapter, head: Revision, push: Push, kept: Revision | None) -> Revision:
    whole: dict[str, Any] = {"state": Revision.State.DRAFT}
    if push.summary is not None:
        whole = {
            "state": Revision.State.ACCEPTED,
            "number": next_number(adapter) if push.branch == MAIN else None,
            "base_model": push.base_model,
            "provenance": kept.provenance if kept else {},
            **facts_of(push.summary),
        }
    revision = Revision.objects.create(
        adapter=adapter,
        oid=make_oid(push.files, head),
        parent=head,
        author=push.author,
        title=push.title[:MAX_TITLE],
        message=push.message,
        origin=Revision.Origin.HUB,
        **whole,
    )
    add_files(revision, push.files)
    return revision
