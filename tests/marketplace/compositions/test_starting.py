"""Starting a job: quotas, locks, the queue."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection

from composer.examples import Example
from marketplace.compositions import tasks
from marketplace.compositions.models import CompositionJob
from marketplace.compositions.services import (
    CompositionError,
    check_composition,
    clone_composition,
    compatible_pool,
    start_composition,
)
from tests.factories import make_adapter, make_base_model

pytestmark = pytest.mark.django_db


def test_it_works(make_request, sent, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        job = start_composition(make_request())
    job.refresh_from_db()
    assert job.state == "queued"
    assert job.sent_at is not None
    assert sent == [str(job.pk)]


def test_an_instruction_is_laid_around_every_input(make_request, sent):
    job = start_composition(make_request(instruction=" Find it. "))
    assert job.examples.get(position=0).input == "Find it.\n\nInput: word0\nOutput:"


def test_fewer_than_six_rows_are_all_fit(make_request, sent):
    job = start_composition(make_request(rows=[Example("a", "b")] * 5))
    assert set(job.examples.values_list("split", flat=True)) == {"fit"}


def test_a_queue_that_is_away_delays_the_job_only(
    make_request, monkeypatch, django_capture_on_commit_callbacks
):
    from kombu.exceptions import OperationalError

    def refuse(_):
        raise OperationalError("away")

    monkeypatch.setattr(tasks.run_composition, "delay", refuse)
    with django_capture_on_commit_callbacks(execute=True):
        job = start_composition(make_request())
    job.refresh_from_db()
    assert (job.state, job.sent_at) == ("queued", None)
    ids: list[str] = []
    monkeypatch.setattr(tasks.run_composition, "delay", ids.append)
    assert tasks.requeue_lost_jobs() == 1
    assert ids == [str(job.pk)]


def test_two_jobs_of_a_user_are_with_the_queue_at_a_time(
    make_request, sent, django_capture_on_commit_callbacks
):
    with django_capture_on_commit_callbacks(execute=True):
        jobs = [start_composition(make_request()) for _ in range(4)]
    assert sent == [str(job.pk) for job in jobs[:2]]
    jobs[0].move(frm="queued", to="cancelled")
    tasks.send_waiting(jobs[0].owner_id)
    assert sent[2:] == [str(jobs[2].pk)]


def test_cancelling_lets_the_next_one_in(make_request, sent, django_capture_on_commit_callbacks):
    from marketplace.compositions.services import cancel_composition

    with django_capture_on_commit_callbacks(execute=True):
        jobs = [start_composition(make_request()) for _ in range(3)]
    with django_capture_on_commit_callbacks(execute=True):
        cancel_composition(jobs[1])
    assert sent[2:] == [str(jobs[2].pk)]


def test_the_number_of_waiting_jobs_is_limited(make_request, sent, settings):
    settings.MAX_QUEUED_JOBS_PER_USER = 2
    start_composition(make_request())
    start_composition(make_request())
    with pytest.raises(CompositionError, match="2 jobs waiting"):
        start_composition(make_request())


def test_the_number_of_jobs_a_day_is_limited(make_request, sent, settings):
    settings.MAX_JOBS_PER_DAY = 1
    start_composition(make_request())
    with pytest.raises(CompositionError, match="in 24 hours"):
        start_composition(make_request())


@pytest.mark.django_db(transaction=True)
def test_quota_and_numbers_hold_against_a_crowd(make_request, sent, settings):
    settings.MAX_QUEUED_JOBS_PER_USER = 3
    request = make_request()

    def start(_):
        try:
            return start_composition(request).number
        except CompositionError:
            return None
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        numbers = list(pool.map(start, range(6)))
    assert sorted(number for number in numbers if number) == [1, 2, 3]


@pytest.mark.django_db(transaction=True)
def test_one_key_is_one_job_against_a_crowd(make_request, sent):
    request = make_request(idempotency_key="twice")

    def start(_):
        try:
            return start_composition(request).pk
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(start, range(4)))) == 1
    assert CompositionJob.objects.count() == 1


@pytest.mark.parametrize("key", ["x" * 101, "a\x00b"])
def test_a_key_that_cannot_be_kept_is_refused(make_request, key):
    with pytest.raises(CompositionError) as refused:
        start_composition(make_request(idempotency_key=key))
    assert "idempotency_key" in refused.value.problems


def test_an_unknown_option_is_named(make_request):
    checked = check_composition(make_request(options={"colour": "red"}))
    assert checked.problems["colour"] == ["There is no such option."]


def test_all_of_too_many_is_refused(make_request, settings):
    settings.MAX_CANDIDATES = 2
    checked = check_composition(make_request(options={"selection": "all"}))
    assert "at most 2" in checked.problems["selection"][0]


def test_a_pool_has_a_limit(make_request, settings):
    settings.MAX_POOL = 2
    assert "At most 2" in check_composition(make_request()).problems["adapters"][0]


def test_the_pool_picked_for_a_user_is_what_they_may_see(alice, adapters):
    base = make_base_model()
    mine = make_adapter(alice, "mine", visibility="private")
    make_adapter(name="theirs", visibility="private")
    make_adapter(name="elsewhere", base_model=make_base_model("other/base"))
    names = {revision.adapter.name for revision in compatible_pool(alice, base)}
    assert names == {"adapter-a", "adapter-b", "adapter-c", mine.name}


def test_a_base_without_adapters_says_so(make_request):
    empty = make_base_model("empty/base")
    checked = check_composition(make_request(pick_for_me=True, revisions=(), base_model=empty))
    assert "no adapter for empty/base" in checked.problems["base_model"][0]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"weight_blocks": 2}, "weight_blocks"),
        ({"weight_blocks": 17, "optimizer": "gradient"}, "weight_blocks"),
        ({"optimizer": "gradient", "merge_method": "factor"}, "optimizer"),
        ({"quick_lora": True, "merge_method": "factor"}, "quick_lora"),
    ],
)
def test_what_gradients_cannot_do_is_refused(make_request, options, field):
    with pytest.raises(CompositionError) as caught:
        start_composition(make_request(options=options))
    assert list(caught.value.problems) == [field]


def test_weights_by_hand_have_no_blocks(make_request):
    options = {"optimizer": "gradient", "weight_blocks": 2}
    with pytest.raises(CompositionError, match="learned by gradient only"):
        start_composition(make_request(options=options, hand_weights={"carol/adapter-a": 1.0}))


def test_a_clone_asks_for_the_same_gradients(make_request, alice, sent):
    options = {"optimizer": "gradient", "weight_blocks": 2, "quick_lora": True}
    first = start_composition(make_request(options=options))
    clone = clone_composition(first, by=alice)
    assert (clone.optimizer, clone.weight_blocks, clone.quick_lora) == ("gradient", 2, True)
