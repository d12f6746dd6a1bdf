"""Messages that arrive twice, never, or name what is over."""

from __future__ import annotations

from tests.faults.site import FaultSite

TASK = "marketplace.compositions.tasks.run_composition"


def send(site: FaultSite, job: str, times: int = 1) -> None:
    """Ring the bell for a job by hand."""
    code = (
        "from marketplace.compositions.tasks import run_composition\n"
        f"for _ in range({times}): run_composition.delay({job!r})"
    )
    site.stack.manage("shell", "-v", "0", "-c", code)


def test_the_same_message_for_two_workers_is_one_run(workers):
    workers.start_worker()
    workers.start_worker()
    job = workers.start_job()
    send(workers, job, times=4)
    assert workers.wait_for_state(job, "succeeded", "failed") == "succeeded"
    assert workers.field(job, "fence") == 1
    assert workers.field(job, "attempts") == 1


def test_a_message_for_a_job_that_is_over_does_nothing(workers):
    workers.start_worker()
    job = workers.start_job(budget=5)
    workers.wait_for_state(job, "succeeded")
    before = workers.field(job, "finished_at")
    send(workers, job)
    again = workers.start_job(budget=5)  # behind it in the queue
    workers.wait_for_state(again, "succeeded")
    assert workers.field(job, "finished_at") == before
    assert workers.field(job, "fence") == 1


def test_a_job_whose_message_was_lost_is_sent_again(workers):
    job = workers.start_job(budget=5)
    workers.stack.manage(
        "shell", "-v", "0", "-c", "from marketplace.celery import app; app.control.purge()"
    )
    workers.stack.sql(
        "UPDATE compositions_compositionjob SET sent_at = now() - interval '2 minutes' "
        "WHERE id = %s",
        job,
    )
    workers.start_worker()
    assert workers.wait_for_state(job, "succeeded", "failed") == "succeeded"


def test_a_job_that_never_reached_the_queue_is_sent(workers):
    job = workers.start_job(budget=5)
    workers.stack.manage(
        "shell", "-v", "0", "-c", "from marketplace.celery import app; app.control.purge()"
    )
    workers.stack.sql("UPDATE compositions_compositionjob SET sent_at = NULL WHERE id = %s", job)
    workers.start_worker()
    assert workers.wait_for_state(job, "succeeded", "failed") == "succeeded"


def test_a_crowd_of_jobs_of_one_user_lets_others_in(workers):
    crowd = [workers.start_job(budget=30) for _ in range(5)]
    other = workers.stack.make_user("bob")
    body = {
        "adapters": ["carol/adapter0", "carol/adapter1"],
        "rows": [{"input": "word1", "output": "answer1"}],
        "budget": 5,
    }
    late = workers.stack.api("POST", "jobs", other, body)["id"]
    workers.start_worker()
    workers.wait_for_state(late, "succeeded")
    waiting = [job for job in crowd if workers.field(job, "state") == "queued"]
    assert len(waiting) >= 2
    for job in crowd:
        workers.wait_for_state(job, "succeeded")
