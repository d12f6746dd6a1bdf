"""Workers that die, freeze or are told to go in the middle of a job."""

from __future__ import annotations

import re
import signal
import time

import pytest

from tests.faults.site import FaultSite


@pytest.fixture(scope="module")
def undisturbed(site: FaultSite) -> dict[str, float]:
    """The weights of a job that nothing happened to."""
    site.start_worker()
    job = site.start_job()
    assert site.wait_for_state(job, "succeeded", "failed") == "succeeded", site.field(job, "error")
    weights = site.weights(job)
    site.stop_workers()
    return weights


def test_it_works(undisturbed):
    assert len(undisturbed) == 4
    assert any(undisturbed.values())


def test_a_killed_workers_job_resumes_elsewhere_to_the_same_weights(workers, undisturbed):
    first = workers.start_worker()
    job = workers.start_job()
    workers.wait_for_evaluation(job, 40)
    workers.stack.kill(first)
    spent = workers.evaluations(job)
    assert workers.field(job, "state") == "running"
    began = time.monotonic()
    workers.start_worker()
    workers.wait_for_state(job, "succeeded", "failed")
    assert time.monotonic() - began < 90
    assert workers.field(job, "state") == "succeeded"
    assert workers.field(job, "attempts") == 2
    assert workers.evaluations(job) >= spent
    assert workers.weights(job) == undisturbed


def test_a_worker_killed_right_after_the_claim_loses_nothing(workers, undisturbed):
    first = workers.start_worker()
    job = workers.start_job()
    workers.wait_for_state(job, "running")
    workers.stack.kill(first)
    workers.start_worker()
    assert workers.wait_for_state(job, "succeeded", "failed") == "succeeded"
    assert workers.weights(job) == undisturbed


def test_a_frozen_worker_cannot_write_once_its_job_is_taken_over(workers, undisturbed):
    frozen = workers.start_worker()
    job = workers.start_job()
    workers.wait_for_evaluation(job, 2)
    workers.send_signal(frozen, signal.SIGSTOP)
    workers.start_worker()
    assert workers.wait_for_state(job, "succeeded", "failed") == "succeeded"
    fence, ended = workers.field(job, "fence"), workers.field(job, "finished_at")
    workers.send_signal(frozen, signal.SIGCONT)
    workers.stack.wait_for(
        "the frozen worker to be done with it",
        lambda: re.search(
            r"lease was lost|run_composition\[[^]]*\] succeeded", workers.log(frozen)
        ),
        seconds=90,
    )
    assert (workers.field(job, "fence"), workers.field(job, "finished_at")) == (fence, ended)
    assert workers.weights(job) == undisturbed


def test_a_job_that_kills_every_worker_ends_as_failed(workers):
    job = workers.start_job(budget=500)
    for attempt in (1, 2, 3):
        worker = workers.start_worker()
        workers.stack.wait_for(
            f"claim {attempt}", lambda n=attempt: workers.field(job, "attempts") == n, seconds=60
        )
        workers.stack.kill(worker)
    workers.start_worker()
    workers.wait_for_state(job, "failed")
    assert workers.field(job, "error_code") == "worker_lost"
    assert "lost 3 times" in workers.field(job, "error")
    assert workers.field(job, "error_fix")


def test_a_worker_told_to_go_gives_its_job_back_uncharged(workers, undisturbed):
    first = workers.start_worker()
    job = workers.start_job()
    workers.wait_for_evaluation(job, 20)
    first.request_stop()
    workers.start_worker()
    assert workers.wait_for_state(job, "succeeded", "failed") == "succeeded"
    assert workers.field(job, "attempts") == 1
    assert workers.weights(job) == undisturbed


def test_a_database_that_drops_every_connection_costs_time_only(workers, undisturbed):
    workers.start_worker()
    job = workers.start_job()
    workers.wait_for_evaluation(job, 20)
    workers.stack.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert workers.wait_for_state(job, "succeeded", "failed") == "succeeded"
    assert workers.weights(job) == undisturbed


def test_nothing_is_left_in_the_work_folder_of_jobs_that_are_over(workers):
    workers.start_worker()
    job = workers.start_job(budget=5)
    workers.wait_for_state(job, "succeeded")
    folder = workers.stack.folder / "data" / "work" / job
    workers.stack.wait_for("the folder to go", lambda: not folder.exists(), seconds=10)
