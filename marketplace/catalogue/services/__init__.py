"""Every write of the shelf that touches more than one row.

Uploads and compositions end in `publish_revision`, hub commits in `push_revision`. Reads are in
`querysets`, `search`.
"""

from __future__ import annotations

from marketplace.catalogue.services.access import (
    MAX_MESSAGE,
    NoSuchRequest,
    NotGated,
    ask_for_access,
    decide_access,
    grant_access,
    withdraw_request,
)
from marketplace.catalogue.services.cards import (
    MAX_SAMPLES,
    MAX_TAGS,
    CardFields,
    check_card,
    update_card,
)
from marketplace.catalogue.services.counting import count_download, like, unlike
from marketplace.catalogue.services.errors import CatalogueError, PublishError
from marketplace.catalogue.services.publishing import (
    NewRevision,
    Parent,
    find_licence_problems,
    publish_revision,
)
from marketplace.catalogue.services.pushing import (
    Gone,
    HeadMoved,
    Push,
    push_revision,
    read_head,
)
from marketplace.catalogue.services.repositories import (
    NameTaken,
    RefTaken,
    create_adapter,
    create_ref,
    delete_ref,
    move_adapter,
    set_gate,
)
from marketplace.catalogue.services.shelving import (
    delete_adapter,
    set_visibility,
    unyank_revision,
    yank_revision,
)
from marketplace.catalogue.services.trees import read_used_bytes

__all__ = [
    "MAX_MESSAGE",
    "MAX_SAMPLES",
    "MAX_TAGS",
    "CardFields",
    "CatalogueError",
    "Gone",
    "HeadMoved",
    "NameTaken",
    "NewRevision",
    "NoSuchRequest",
    "NotGated",
    "Parent",
    "PublishError",
    "Push",
    "RefTaken",
    "ask_for_access",
    "check_card",
    "count_download",
    "create_adapter",
    "create_ref",
    "decide_access",
    "delete_adapter",
    "delete_ref",
    "find_licence_problems",
    "grant_access",
    "like",
    "move_adapter",
    "publish_revision",
    "push_revision",
    "read_head",
    "read_used_bytes",
    "set_gate",
    "set_visibility",
    "unlike",
    "unyank_revision",
    "update_card",
    "withdraw_request",
    "yank_revision",
]
