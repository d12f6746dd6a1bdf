"""The compose tray: revisions collected while browsing, kept in the session.

Only ids are kept; what the visitor may no longer see, or was yanked, drops out when it is read.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.http import HttpRequest

from composer.compatibility import check_compatibility
from marketplace.catalogue.models import Revision

SESSION_KEY = "tray"
MAX_REVISIONS = 20


@dataclass(frozen=True)
class Tray:
    """What lies in the tray, and whether it can be composed."""

    revisions: tuple[Revision, ...] = ()

    @property
    def names(self) -> list[str]:
        """Full names, for marking rows that are in the tray."""
        return [revision.adapter.full_name for revision in self.revisions]

    @property
    def adapter_ids(self) -> set[int]:
        """Ids of the adapters whose revisions are here."""
        return {revision.adapter_id for revision in self.revisions}

    @property
    def is_full(self) -> bool:
        """Whether nothing more goes in."""
        return len(self.revisions) >= MAX_REVISIONS

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why no merge method fits all of it; empty where one does."""
        summaries = {
            revision.adapter.full_name: summary
            for revision in self.revisions
            if (summary := revision.adapter_summary) is not None
        }
        if len(summaries) < 2:  # noqa: PLR2004 - one adapter fits itself
            return ()
        answer = check_compatibility(summaries)
        return () if answer.allowed else next(iter(answer.methods.values()))


def read_tray(request: HttpRequest) -> Tray:
    """Return the tray of this visitor."""
    ids = _read_ids(request)
    if not ids:
        return Tray()
    rows = (
        Revision.objects.visible_to(request.user)
        .on_shelf()
        .select_related("adapter__owner")
        .in_bulk(ids)
    )
    return Tray(tuple(rows[pk] for pk in ids if pk in rows))


def add_to_tray(request: HttpRequest, revision: Revision) -> bool:
    """Put a revision in, in place of another one of the same adapter; False where it is full."""
    tray = read_tray(request)
    kept = [item.pk for item in tray.revisions if item.adapter_id != revision.adapter_id]
    if len(kept) >= MAX_REVISIONS:
        return False
    request.session[SESSION_KEY] = [*kept, revision.pk]
    return True


def remove_from_tray(request: HttpRequest, adapter_id: int) -> None:
    """Take an adapter out, whichever of its revisions is in."""
    tray = read_tray(request)
    kept = [item.pk for item in tray.revisions if item.adapter_id != adapter_id]
    request.session[SESSION_KEY] = kept


def clear_tray(request: HttpRequest) -> None:
    """Empty it."""
    request.session.pop(SESSION_KEY, None)


def _read_ids(request: HttpRequest) -> list[int]:
    kept = request.session.get(SESSION_KEY)
    ids = kept if isinstance(kept, list) else []
    return [pk for pk in ids if isinstance(pk, int)][:MAX_REVISIONS]
