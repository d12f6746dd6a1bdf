"""What a job will cost, told before it starts."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from django.utils import timezone

from marketplace.compositions.estimating import (
    QUICK_LORA_EVALUATIONS,
    Plan,
    estimate,
)
from marketplace.compositions.models import CompositionJob
from marketplace.compositions.services import check_composition
from tests.factories import make_base_model

pytestmark = pytest.mark.django_db
PLAN = Plan(pool=3, budget=40, rows=8)
MIB = 1024**2


def finish(job: CompositionJob, seconds: float, **changes) -> None:
    now = timezone.now()
    CompositionJob.objects.filter(pk=job.pk).update(
        state="succeeded",
        started_at=now - timedelta(seconds=seconds),
        finished_at=now,
        evaluations_spent=40,
        **changes,
    )


def test_it_works(job):
    before = estimate(job.base_model, PLAN)
    assert (before.screening, before.evaluations, before.answers, before.methods) == (3, 40, 8, 4)
    assert before.queued == 1
    assert before.seconds is None
    finish(job, 60)
    after = estimate(job.base_model, PLAN)
    assert after.queued == 0
    assert after.seconds == pytest.approx(60)
    assert after.memory == before.memory


def test_jobs_that_trained_do_not_make_others_look_slow(job):
    finish(job, 60, quick_lora=True)
    plain = estimate(job.base_model, PLAN)
    trained = estimate(job.base_model, replace(PLAN, quick_lora=True))
    assert trained.seconds == pytest.approx(60)
    assert trained.methods == 5
    assert plain.lora_seconds == pytest.approx(trained.seconds - plain.seconds)
    assert plain.lora_evaluations == QUICK_LORA_EVALUATIONS


def test_a_budget_of_gradients_takes_longer(job):
    finish(job, 60)
    plain = estimate(job.base_model, PLAN)
    learned = estimate(job.base_model, replace(PLAN, gradient=True))
    assert plain.seconds == pytest.approx(60)
    assert learned.seconds > plain.seconds


def test_memory_grows_with_what_is_held():
    base = make_base_model()
    plain = replace(PLAN, parameters=10**6, rank=16, fit_tokens=10_000)
    small = estimate(base, plain).memory
    # The libraries, and the base in half precision and in float32.
    assert small > 500 * MIB + 6 * base.parameter_count
    assert estimate(base, replace(plain, dtype="float32")).memory < small
    for changes in (
        {"pool": 8},
        {"pool": 8, "parameters": 10**7},
        {"quick_lora": True},
        {"gradient": True},
        {"paths": tuple(base.module_table)},
    ):
        assert estimate(base, replace(plain, **changes)).memory > small


def test_a_large_base_is_not_held_twice():
    base = make_base_model("large/base", parameter_count=3 * 10**9)
    assert estimate(base, PLAN).memory < 3 * base.parameter_count


def test_without_a_size_there_is_no_figure():
    base = make_base_model("unknown/base", parameter_count=None)
    assert estimate(base, PLAN).memory is None
    assert estimate(None, PLAN).memory is None


def test_a_plan_is_read_off_a_checked_request(make_request):
    options = {"optimizer": "gradient", "quick_lora": True, "n_candidates": 2, "dtype": "float32"}
    checked = check_composition(make_request(options=options))
    plan = Plan.of(checked.options, checked.pool, checked.split)
    assert (plan.pool, plan.rows, plan.budget, plan.n_candidates) == (3, 8, 40, 2)
    assert plan.gradient
    assert plan.quick_lora
    assert plan.dtype == "float32"
    assert plan.rank == 4
    assert plan.parameters > 0
    assert set(plan.paths) <= set(checked.base_model.module_table)
    assert plan.paths
    assert plan.fit_tokens > 0
    by_hand = Plan.of(checked.options, checked.pool, checked.split, is_searched=False)
    assert (by_hand.budget, by_hand.gradient) == (1, False)


def test_a_request_without_pool_and_rows_is_a_plan_of_nothing():
    plan = Plan.of({}, (), None)
    assert (plan.pool, plan.rows, plan.parameters, plan.paths) == (0, 0, 0, ())
