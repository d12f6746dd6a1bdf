"""The shelf: base models, adapters, their immutable revisions, and how these are related.

An Adapter is `owner/name`; a Revision is an immutable tree of files; Refs point at revisions. Only
accepted revisions exist for anyone but their owner. Writes that touch more than one row are in
`services`, reads worth a name in `querysets`.
"""

from __future__ import annotations

from marketplace.catalogue.models.adapters import (
    NO_GAIN,
    AccessRequest,
    Adapter,
    AdapterAlias,
    Sample,
    Tag,
)
from marketplace.catalogue.models.base_models import BaseModel, PromptFormat
from marketplace.catalogue.models.counts import DownloadCount, Like, NewDownload
from marketplace.catalogue.models.revisions import Lineage, Ref, Revision, RevisionFile

__all__ = [
    "NO_GAIN",
    "AccessRequest",
    "Adapter",
    "AdapterAlias",
    "BaseModel",
    "DownloadCount",
    "Like",
    "Lineage",
    "NewDownload",
    "PromptFormat",
    "Ref",
    "Revision",
    "RevisionFile",
    "Sample",
    "Tag",
]
