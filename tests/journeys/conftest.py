"""The site that the journeys walk through: real servers, demo catalogue and base model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.stack import Stack, running_stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One site for all journeys of the run, seeded with the demo catalogue."""
    folder = tmp_path_factory.mktemp("journeys")
    with running_stack(folder, number=2) as running:
        running.manage("seed_demo", "--password", "demo demo demo")
        running.start_web()
        running.start_worker()
        yield running
