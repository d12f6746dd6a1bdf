"""Every write of the shelf that touches more than one row.

Both roads, upload and composition, end in `publish_revision`. Reads are in `querysets`, `search`.
"""

from __future__ import annotations

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
from marketplace.catalogue.services.shelving import (
    delete_adapter,
    set_visibility,
    unyank_revision,
    yank_revision,
)
from marketplace.catalogue.services.trees import read_used_bytes

__all__ = [
    "MAX_SAMPLES",
    "MAX_TAGS",
    "CardFields",
    "CatalogueError",
    "NewRevision",
    "Parent",
    "PublishError",
    "check_card",
    "count_download",
    "delete_adapter",
    "find_licence_problems",
    "like",
    "publish_revision",
    "read_used_bytes",
    "set_visibility",
    "unlike",
    "unyank_revision",
    "update_card",
    "yank_revision",
]
