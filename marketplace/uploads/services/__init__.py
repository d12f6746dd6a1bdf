"""Every write of drafts: receive files, have them checked, publish, discard; and of transfers.

A draft survives a refusal, a reload and a restart of the site.
"""

from __future__ import annotations

from marketplace.uploads.services.checking import validate_upload
from marketplace.uploads.services.drafts import (
    CARD_FIELDS,
    create_upload,
    discard_upload,
    remove_stale_uploads,
    update_draft_card,
)
from marketplace.uploads.services.exporting import ExportRequest, start_export
from marketplace.uploads.services.importing import ImportRequest, start_import
from marketplace.uploads.services.publishing import publish_upload
from marketplace.uploads.services.receiving import Announced, receive_file, remove_file
from marketplace.uploads.services.transfers import TooMany, cancel_transfer, retry_transfer

__all__ = [
    "CARD_FIELDS",
    "Announced",
    "ExportRequest",
    "ImportRequest",
    "TooMany",
    "cancel_transfer",
    "create_upload",
    "discard_upload",
    "publish_upload",
    "receive_file",
    "remove_file",
    "remove_stale_uploads",
    "retry_transfer",
    "start_export",
    "start_import",
    "update_draft_card",
    "validate_upload",
]
