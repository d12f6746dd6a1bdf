"""The site's settings with an object storage that sends large files itself."""

from __future__ import annotations

from marketplace.settings import *  # noqa: F403 - the same in all else
from marketplace.settings import STORAGES

STORAGES = {
    **STORAGES,
    "default": {"BACKEND": "tests.journeys.offloading_storage.OffloadingStorage"},
}
