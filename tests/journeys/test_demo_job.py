"""`manage.py demo_job`: queue, worker, SmolLM2 and the table of its scores."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.stack import PROJECT, Stack

pytestmark = pytest.mark.timeout(600)  # a real search on a real model


def test_it_works(stack: Stack):
    printed = stack.manage("demo_job", seconds=600)
    scores = dict(re.findall(r"(Base|Best single|Uniform|Composed)[^│]*│\s*(\d+)/64", printed))
    assert set(scores) == {"Base", "Best single", "Uniform", "Composed"}, printed
    right = {method: int(count) for method, count in scores.items()}
    assert right["Composed"] >= 45
    assert right["Composed"] > right["Best single"] > right["Base"]
    assert stack.url in printed


def test_a_second_time_prints_what_is_there(stack: Stack):
    first = stack.manage("demo_job", seconds=600)
    before = _count_jobs(stack)
    assert stack.manage("demo_job", seconds=60) == first
    assert _count_jobs(stack) == before


def test_without_a_worker_it_says_so_in_time(stack: Stack):
    stack.manage("demo_job", seconds=600)
    command = [sys.executable, "manage.py", "demo_job", "--again", "--wait", "1"]
    # Frozen, because a worker that lives would be told of the job by its own reaper.
    with stack.frozen(*stack.workers):
        done = subprocess.run(
            command,
            cwd=PROJECT,
            env=stack.env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        stack.sql(
            "UPDATE compositions_compositionjob SET state = 'cancelled', finished_at = now() "
            "WHERE state = 'queued'"
        )
    assert done.returncode != 0
    assert "No worker took the job within 1 seconds" in done.stderr


def _count_jobs(stack: Stack) -> int:
    return int(stack.sql("SELECT count(*) FROM compositions_compositionjob")[0][0])
