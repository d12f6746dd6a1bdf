"""Taking things off the shelf and putting them back: yank, delete, visibility, and what is latest.

Nothing here destroys files: an exact pin of a yanked revision keeps working, and the files of a
deleted adapter go only when `tasks.collect_orphan_blobs` finds its time of grace over.
"""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from composer.compatibility import shape_key
from marketplace.accounts.models import User
from marketplace.catalogue.models import Adapter, Revision
from marketplace.catalogue.services.cards import CardFields, update_card
from marketplace.catalogue.services.errors import CatalogueError

MAX_REASON = 300


def point_latest(adapter: Adapter) -> None:
    """Make `latest` the newest accepted revision that is not yanked, and copy its facts.

    The caller holds the adapter's row locked. Saves the adapter.
    """
    latest = adapter.revisions.on_shelf().filter(number__isnull=False).order_by("-number").first()
    adapter.latest = latest
    adapter.rank = latest.rank if latest else None
    adapter.targets_key = latest.targets_key if latest else ""
    summary = latest.adapter_summary if latest else None
    adapter.peft_task = (summary.task_type or "") if summary else ""
    adapter.shape_key = shape_key(summary) if summary else ""
    adapter.weights_size = latest.weights_size if latest else None
    if latest:
        adapter.base_model = latest.base_model
    adapter.save()


def yank_revision(revision: Revision, *, by: User, reason: str) -> None:
    """Take a revision off the shelf; exact pins keep working. `latest` moves to the one before.

    Raises:
        CatalogueError: `by` is not the owner, or there is no reason given.
    """
    reason = " ".join(reason.split())
    if not reason or len(reason) > MAX_REASON:
        text = f"Say in at most {MAX_REASON} characters why; whoever has it pinned will read it."
        raise CatalogueError({"reason": [text]})
    with transaction.atomic():
        adapter = lock_own(revision.adapter, by)
        Revision.objects.filter(pk=revision.pk, yanked_at__isnull=True).update(
            yanked_at=timezone.now(), yank_reason=reason
        )
        point_latest(adapter)
    revision.refresh_from_db()


def unyank_revision(revision: Revision, *, by: User) -> None:
    """Put a yanked revision back on the shelf.

    Raises:
        CatalogueError: `by` is not the owner.
    """
    with transaction.atomic():
        adapter = lock_own(revision.adapter, by)
        Revision.objects.filter(pk=revision.pk).update(yanked_at=None, yank_reason="")
        point_latest(adapter)
    revision.refresh_from_db()


def delete_adapter(adapter: Adapter, *, by: User) -> None:
    """Delete the adapter for everybody, its owner included; its name is never given out again.

    Compositions made from it keep their lineage, without its name.

    Raises:
        CatalogueError: `by` is not the owner.
    """
    with transaction.atomic():
        locked = lock_own(adapter, by)
        Adapter.objects.filter(pk=locked.pk, deleted_at__isnull=True).update(
            deleted_at=timezone.now()
        )
    adapter.refresh_from_db()


def set_visibility(adapter: Adapter, visibility: str, *, by: User) -> Adapter:
    """Make the adapter public or private.

    Raises:
        PublishError: `by` is not the owner, or a parent's licence stands against it.
    """
    return update_card(adapter, CardFields(visibility=visibility), by=by)


def lock_own(adapter: Adapter, by: User) -> Adapter:
    """Return the adapter with its row locked.

    Raises:
        CatalogueError: `by` is not the owner.
    """
    locked = Adapter.objects.select_for_update(no_key=True, of=("self",)).get(pk=adapter.pk)
    if locked.owner_id != by.pk:
        raise CatalogueError({"": ["Only the owner of an adapter can do this."]})
    return locked
