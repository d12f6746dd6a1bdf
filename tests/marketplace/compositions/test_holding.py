"""Leases, fencing tokens, the reaper, and what a worker writes."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from django.utils import timezone

from composer.progress import (
    AnswersScored,
    CandidateScored,
    EvaluationScored,
    LogLine,
    PhaseStarted,
    ReferenceScored,
)
from marketplace.compositions import tasks
from marketplace.compositions.holding import Hold
from marketplace.compositions.models import CompositionJob
from marketplace.compositions.recording import Recorder
from marketplace.leases import LeaseLost
from marketplace.live.models import Event
from tests.marketplace.compositions.finished import finish

pytestmark = pytest.mark.django_db


def expire(job: CompositionJob) -> None:
    past = timezone.now() - timedelta(minutes=1)
    CompositionJob.objects.filter(pk=job.pk).update(lease_expires_at=past)


def claim(job: CompositionJob, worker: str = "w1") -> Hold:
    hold = Hold.claim(job.pk, worker=worker)
    assert hold is not None
    return hold


def test_it_works(job):
    hold = claim(job)
    job.refresh_from_db()
    assert (job.state, job.fence, job.attempts, job.worker) == ("running", 1, 1, "w1")
    assert hold.end("succeeded")
    job.refresh_from_db()
    assert job.state == "succeeded"
    assert job.finished_at is not None
    assert job.lease_expires_at is None


def test_only_one_claims(job):
    claim(job)
    assert Hold.claim(job.pk, worker="w2") is None
    assert Hold.claim(uuid.uuid4(), worker="w2") is None


def test_a_lost_lease_is_taken_over_and_the_first_writes_nothing_more(job):
    first = claim(job)
    expire(job)
    second = claim(job, "w2")
    assert second.fence == 2
    first.renew()
    assert first.is_lost
    with pytest.raises(LeaseLost), first.writing():
        pass
    assert not first.end("succeeded")
    assert not first.give_back()
    job.refresh_from_db()
    assert (job.state, job.worker) == ("running", "w2")


def test_a_hold_hears_of_a_cancellation(job):
    hold = claim(job)
    assert not hold.cancel_requested
    CompositionJob.objects.filter(pk=job.pk).update(cancel_requested=True)
    hold.renew()
    assert hold.cancel_requested


def test_giving_back_is_not_charged(job):
    claim(job).give_back()
    job.refresh_from_db()
    assert (job.state, job.attempts, job.sent_at) == ("queued", 0, None)


@pytest.mark.django_db(transaction=True)
def test_the_lease_is_renewed_while_the_work_goes_on(job, settings):
    settings.JOB_HEARTBEAT_SECONDS = 0.05
    hold = claim(job)
    expire(job)
    with hold:
        job.refresh_from_db()
        assert job.lease_expires_at > timezone.now()
        CompositionJob.objects.filter(pk=job.pk).update(cancel_requested=True)
        for _ in range(200):
            if hold.cancel_requested:
                break
            hold._done.wait(0.02)
    assert hold.cancel_requested


def test_the_reaper_returns_a_lost_job(job, sent):
    claim(job)
    expire(job)
    assert tasks.requeue_lost_jobs() == 1
    job.refresh_from_db()
    assert (job.state, job.fence) == ("queued", 2)
    assert sent == [str(job.pk)]


def test_the_reaper_leaves_a_job_that_is_held(job, sent):
    claim(job)
    assert tasks.requeue_lost_jobs() == 0
    job.refresh_from_db()
    assert job.state == "running"


def test_a_job_that_lost_three_workers_fails_with_a_sentence(job, sent, settings):
    for _ in range(3):
        claim(job)
        expire(job)
        tasks.requeue_lost_jobs()
    job.refresh_from_db()
    assert (job.state, job.error_code) == ("failed", "worker_lost")
    assert "lost 3 times" in job.error
    assert job.error_fix


def test_a_cancelled_job_that_lost_its_worker_ends_as_cancelled(job, sent):
    claim(job)
    CompositionJob.objects.filter(pk=job.pk).update(cancel_requested=True)
    expire(job)
    tasks.requeue_lost_jobs()
    job.refresh_from_db()
    assert job.state == "cancelled"


def test_a_silent_message_is_sent_again(job, sent):
    long_ago = timezone.now() - timedelta(minutes=2)
    CompositionJob.objects.filter(pk=job.pk).update(sent_at=long_ago)
    assert tasks.requeue_lost_jobs() == 1
    assert tasks.requeue_lost_jobs() == 0


def test_old_rows_are_forgotten(job):
    finish(job)
    assert tasks.forget_old_rows() == 0
    old = timezone.now() - timedelta(days=31)
    CompositionJob.objects.filter(pk=job.pk).update(finished_at=old)
    assert tasks.forget_old_rows() == 8
    job.refresh_from_db()
    assert job.report["answers"] == []
    assert not job.log.exists()
    assert job.ingredients.count() == 3


def test_progress_becomes_rows_and_events(job):
    recorder = Recorder(claim(job), job)
    name = job.ingredients.first().name
    recorder(PhaseStarted("screening", "scoring 3 adapters", 3))
    recorder(CandidateScored(name, 0.7, 1, 3))
    recorder(ReferenceScored("best_single", 0.7))
    recorder(PhaseStarted("searching", "searching", 40))
    recorder(EvaluationScored(0, 40, (), 3.0, 3.0, is_best=True))
    recorder(EvaluationScored(1, 40, (0.5, 0, 0), 0.6, 0.5, is_best=True))
    recorder(EvaluationScored(1, 40, (0.5, 0, 0), 0.6, 0.5, is_best=True))  # replayed
    recorder(AnswersScored("base", 1, 8))
    recorder(LogLine("something worth keeping"))
    recorder.flush()
    job.refresh_from_db()
    assert job.phase == "searching"
    assert (job.best_single_loss, job.best_loss, job.evaluations_spent) == (0.7, 0.5, 1)
    assert job.ingredients.first().screening_loss == 0.7
    assert list(job.evaluations.values_list("number", flat=True)) == [0, 1]
    assert "something worth keeping" in set(job.log.values_list("text", flat=True))
    kinds = set(Event.objects.filter(channel=job.channel).values_list("kind", flat=True))
    assert {"log", "progress"} <= kinds


def test_an_unknown_event_is_a_mistake_of_ours(job):
    with pytest.raises(TypeError, match="unknown progress event"):
        Recorder(claim(job), job)("nonsense")


def test_a_recorder_that_lost_the_job_writes_nothing(job):
    recorder = Recorder(claim(job), job)
    expire(job)
    claim(job, "w2")
    with pytest.raises(LeaseLost):
        recorder(PhaseStarted("searching", "searching", 40))
    assert job.log.count() == 0


def test_only_the_owner_hears_of_a_job(job, alice, bob):
    from django.contrib.auth.models import AnonymousUser

    from marketplace.live.channels import may_listen

    assert may_listen(alice, job.channel)
    assert not may_listen(bob, job.channel)
    assert not may_listen(AnonymousUser(), job.channel)
    assert not may_listen(alice, "job:nonsense")
    assert not may_listen(alice, f"job:{uuid.uuid4()}")
