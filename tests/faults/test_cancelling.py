"""Cancelling a job at every point of its life."""

from __future__ import annotations

import time

import pytest


def cancel(workers, job: str) -> None:
    workers.api("POST", f"jobs/{job}/cancel")


def has_results(workers, job: str) -> bool:
    query = "SELECT count(*) FROM compositions_resultfile WHERE job_id = %s"
    return bool(workers.stack.sql(query, job)[0][0])


def test_a_waiting_job_is_cancelled_at_once(workers):
    job = workers.start_job()
    cancel(workers, job)
    cancel(workers, job)
    assert workers.field(job, "state") == "cancelled"
    workers.start_worker()
    other = workers.start_job(budget=5)
    workers.wait_for_state(other, "succeeded")
    assert workers.field(job, "state") == "cancelled"
    assert workers.field(job, "attempts") == 0


@pytest.mark.parametrize("evaluation", [0, 30])
def test_a_running_job_is_cancelled_within_seconds(workers, evaluation):
    workers.start_worker()
    job = workers.start_job(budget=500)
    if evaluation:
        workers.wait_for_evaluation(job, evaluation)
    else:
        workers.wait_for_state(job, "running")
    began = time.monotonic()
    cancel(workers, job)
    cancel(workers, job)
    workers.wait_for_state(job, "cancelled", "failed", "succeeded")
    assert time.monotonic() - began < 10
    assert workers.field(job, "state") == "cancelled"
    assert not has_results(workers, job)


def test_a_finished_job_stays_as_it_is(workers):
    workers.start_worker()
    job = workers.start_job(budget=5)
    workers.wait_for_state(job, "succeeded")
    cancel(workers, job)
    assert workers.field(job, "state") == "succeeded"
    assert has_results(workers, job)


def test_a_cancelled_job_whose_worker_died_ends_as_cancelled(workers):
    first = workers.start_worker()
    job = workers.start_job(budget=500)
    workers.wait_for_evaluation(job, 5)
    workers.stack.kill(first)
    cancel(workers, job)
    workers.start_worker()
    workers.wait_for_state(job, "cancelled")
    assert not has_results(workers, job)


def test_a_cancelled_job_can_be_retried(workers):
    workers.start_worker()
    job = workers.start_job(budget=60)
    workers.wait_for_state(job, "running")
    cancel(workers, job)
    workers.wait_for_state(job, "cancelled", "succeeded")
    if workers.field(job, "state") == "cancelled":
        workers.api("POST", f"jobs/{job}/retry")
    workers.wait_for_state(job, "succeeded")
