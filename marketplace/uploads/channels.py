"""Who may hear of an import or export on its live channel: its owner alone."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from marketplace.uploads.models import Export, Import


def may_hear_import(user: Any, key: str) -> bool:
    """Tell whether the user owns the import with this id."""
    return _owns(Import, user, key)


def may_hear_export(user: Any, key: str) -> bool:
    """Tell whether the user owns the export with this id."""
    return _owns(Export, user, key)


def _owns(model: type[Import] | type[Export], user: Any, key: str) -> bool:
    try:
        job_id = UUID(key)
    except ValueError:
        return False
    return bool(model.objects.owned_by(user).filter(pk=job_id).exists())
