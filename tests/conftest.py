"""What every test may use; the servers themselves are started by the plugin `tests.servers`."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core.cache import cache


@pytest.fixture(autouse=True)
def _plain_static_files(settings) -> None:
    """No manifest is collected for tests: serve static files under their own names."""
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }


@pytest.fixture(autouse=True)
def _own_data_folder(settings, tmp_path: Path) -> None:
    """Give each test its own stored files, so that tests cannot see each other's."""
    data = tmp_path / "site-data"
    settings.DATA_DIR = data
    settings.QUARANTINE_DIR = data / "quarantine"
    settings.BASE_MODELS_DIR = data / "base_models"
    settings.WORK_DIR = data / "work"
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": str(data / "blobs")},
        },
    }


@pytest.fixture(autouse=True)
def _fresh_cache(request: pytest.FixtureRequest) -> None:
    """Forget rate limits and counters of earlier tests."""
    if "marketplace" in request.node.nodeid:
        cache.clear()
