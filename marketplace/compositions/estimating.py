"""Say before the start what a job will cost, from jobs that this site has done.

Time is the median of the seconds per unit of work of the newest finished jobs on the same base
model; without any there is no figure, and the form says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from django.db.models import Count, DurationField, ExpressionWrapper, F

from marketplace.catalogue.models import BaseModel
from marketplace.compositions.models import CompositionJob

RECENT = 20


@dataclass(frozen=True)
class Estimate:
    """What a job will do; `seconds` is None where no job has been measured yet."""

    screening: int
    evaluations: int
    answers: int
    methods: int
    queued: int
    seconds: float | None


def estimate(
    base: BaseModel | None,
    *,
    pool: int,
    budget: int,
    rows: int,
    prompting: bool = False,
) -> Estimate:
    """Count the work of a job with this many adapters, evaluations and rows."""
    work = _work(pool, budget, rows)
    pace = _seconds_per_unit(base) if base else None
    return Estimate(
        screening=pool,
        evaluations=budget,
        answers=rows,
        methods=5 if prompting else 4,
        queued=CompositionJob.objects.active().count(),
        seconds=None if pace is None else pace * work,
    )


def _work(pool: int, budget: int, rows: int) -> float:
    """One unit is one forward pass over the fit rows; an answer costs about as much per row."""
    return pool + budget + 4.0 * rows / 5


def _seconds_per_unit(base: BaseModel) -> float | None:
    done = (
        CompositionJob.objects.filter(
            base_model=base, state=CompositionJob.State.SUCCEEDED, started_at__isnull=False
        )
        .annotate(
            pool=Count("ingredients", distinct=True),
            rows=Count("examples", distinct=True),
            seconds=ExpressionWrapper(F("finished_at") - F("started_at"), DurationField()),
        )
        .filter(rows__gt=0)  # forgotten rows would make the job look slow
        .order_by("-finished_at")
        .values_list("pool", "evaluations_spent", "rows", "seconds")[:RECENT]
    )
    paces = [took.total_seconds() / _work(pool, spent, rows) for pool, spent, rows, took in done]
    return median(paces) if paces else None
