"""Who descends from whom, as far as the viewer may know.

Hidden adapters lose their name, not their edge, so that the weights still add up.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib.auth.models import AnonymousUser

from marketplace.accounts.models import User
from marketplace.catalogue.models import Adapter, Lineage, Revision

HIDDEN_NAME = "an adapter that is not public"
MAX_CHILDREN = 100


@dataclass(frozen=True)
class Relative:
    """A parent or child with the signed weight on the edge; a hidden one has no address."""

    name: str
    url: str
    weight: float
    note: str
    revision: Revision | None


def list_parents(revision: Revision, user: User | AnonymousUser) -> list[Relative]:
    """Return the parents of a revision in the order of the composition."""
    edges = list(revision.parents.select_related("parent__adapter__owner"))
    visible = _visible_ids(user, [edge.parent_id for edge in edges])
    return [
        _relative(edge.parent, edge.weight, is_visible=edge.parent_id in visible) for edge in edges
    ]


def list_children(adapter: Adapter, user: User | AnonymousUser) -> list[Relative]:
    """Return the revisions composed from this adapter that the user may see, the newest first."""
    edges = (
        Lineage.objects.filter(
            parent__adapter=adapter, child__in=Revision.objects.visible_to(user).on_shelf()
        )
        .select_related("child__adapter__owner")
        .order_by("-child_id")[:MAX_CHILDREN]
    )
    return [_relative(edge.child, edge.weight, is_visible=True) for edge in edges]


def _visible_ids(user: User | AnonymousUser, ids: list[int]) -> set[int]:
    rows = Revision.objects.visible_to(user).filter(pk__in=ids)
    return set(rows.values_list("pk", flat=True))


def _relative(revision: Revision, weight: float, *, is_visible: bool) -> Relative:
    if not is_visible:
        return Relative(HIDDEN_NAME, "", weight, "", None)
    return Relative(
        name=revision.adapter.full_name,
        url=f"{revision.adapter.get_absolute_url()}/revisions/{revision.label}",
        weight=weight,
        note=f"{revision.label} · {revision.short_oid}",
        revision=revision,
    )
