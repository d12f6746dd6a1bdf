"""A site whose servers the tests may kill: a tiny base model, tiny adapters, short leases.

The base is built once by a process of its own, so that the tests themselves never load torch.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.site import FaultSite
from tests.stack import running_stack

# A lease that runs out fast enough to wait for, and phases slow enough to be hit.
SETTINGS = {
    "JOB_LEASE_SECONDS": "4",
    "JOB_HEARTBEAT_SECONDS": "1",
    "JOB_REAPER_SECONDS": "2",
    "OMP_NUM_THREADS": "1",
    "THROTTLE_USER": "100000/min",
    "MAX_JOBS_PER_DAY": "1000",
}


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a two-layer causal model and its tokenizer, and adapters beside it."""
    folder = tmp_path_factory.mktemp("tiny-base")
    subprocess.run(
        [sys.executable, "-m", "tests.faults.tiny_base", str(folder)], check=True, timeout=120
    )
    return folder


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Iterator[FaultSite]:
    """The site with its catalogue; every test starts the workers that it wants to lose."""
    folder = tmp_path_factory.mktemp("faults")
    with running_stack(folder, number=6, settings=SETTINGS) as stack:
        found = FaultSite(stack)
        found.seed(tiny_base)
        stack.start_web()
        yield found


@pytest.fixture
def workers(site: FaultSite) -> Iterator[FaultSite]:
    """The site again; whatever workers the test leaves running are stopped after it."""
    yield site
    site.stop_workers()
