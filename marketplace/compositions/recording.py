"""Write a running composition's progress as rows, and tell the job's page.

Evaluations come in bursts (a population is scored at once), so they are written in batches: at once
when something new is best, otherwise at most every half second. Only the holder's token can write.
"""

from __future__ import annotations

import time
from functools import singledispatchmethod
from typing import Any

from django.utils import timezone

from composer.progress import (
    AnswersScored,
    CandidateScored,
    EvaluationScored,
    LogLine,
    PhaseStarted,
    ReferenceScored,
    TrainingStepped,
)
from marketplace.compositions.holding import Hold
from marketplace.compositions.models import CompositionJob, Evaluation, Ingredient
from marketplace.compositions.models import LogLine as LogRow

BATCH_SECONDS = 0.5
_LOSS_FIELDS = {
    "base": "base_loss",
    "best_single": "best_single_loss",
    "uniform": "uniform_loss",
}


class Recorder:
    """Called with every progress event of one job; raises LeaseLost when the job is not ours."""

    def __init__(self, hold: Hold, job: CompositionJob) -> None:
        self._hold = hold
        self._job = job
        self._waiting: list[EvaluationScored] = []
        self._screened: dict[str, float] = {}
        self._changes: dict[str, Any] = {}
        self._written_at = 0.0

    def __call__(self, event: Any) -> None:
        """Take an event of `composer.progress`."""
        self._take(event)

    def log(self, text: str) -> None:
        """Keep a remark."""
        with self._hold.writing() as job:
            LogRow.objects.create(job=job, text=text[:500])
            self._hold.say("log", {"text": text[:500]})

    def flush(self) -> None:
        """Write everything that waits."""
        if not (self._waiting or self._screened or self._changes):
            return
        with self._hold.writing() as job:
            self._write_evaluations(job)
            for name, loss in self._screened.items():
                Ingredient.objects.filter(job=job, name=name).update(screening_loss=loss)
            if self._changes:
                CompositionJob.objects.filter(pk=job.pk).update(**self._changes)
            self._hold.say("progress", {"evaluation": self._last_number()})
        self._waiting, self._screened, self._changes = [], {}, {}
        self._written_at = time.monotonic()

    def _flush_soon(self) -> None:
        if time.monotonic() - self._written_at > BATCH_SECONDS:
            self.flush()

    def _write_evaluations(self, job: CompositionJob) -> None:
        # A resumed search replays what was scored before: those rows are there already.
        Evaluation.objects.bulk_create(
            [
                Evaluation(
                    job=job,
                    number=event.number,
                    weights=list(event.weights),
                    loss=event.loss,
                    fit_loss=event.fit_loss,
                    is_best=event.is_best,
                )
                for event in self._waiting
            ],
            ignore_conflicts=True,
        )

    def _last_number(self) -> int | None:
        return self._waiting[-1].number if self._waiting else None

    @singledispatchmethod
    def _take(self, event: Any) -> None:
        raise TypeError(f"unknown progress event {type(event).__name__}")

    @_take.register
    def _(self, event: PhaseStarted) -> None:
        self.flush()
        self._changes |= {
            "phase": event.phase,
            "phase_done": 0,
            "phase_total": event.total,
            "phase_started_at": timezone.now(),
        }
        self.flush()
        self.log(event.message)

    @_take.register
    def _(self, event: CandidateScored) -> None:
        self._screened[event.name] = event.loss
        self._changes |= {"phase_done": event.done, "phase_total": event.total}
        self._flush_soon()

    @_take.register
    def _(self, event: EvaluationScored) -> None:
        self._waiting.append(event)
        self._changes |= {
            "phase_done": event.number,
            "phase_total": event.budget,
            "evaluations_spent": event.number,
        }
        if event.is_best:
            self._changes["best_loss"] = event.fit_loss
        self._flush_soon()

    @_take.register
    def _(self, event: TrainingStepped) -> None:
        self._changes |= {"phase_done": event.done, "phase_total": event.total}
        self._flush_soon()

    @_take.register
    def _(self, event: ReferenceScored) -> None:
        self._changes[_LOSS_FIELDS[event.method]] = event.fit_loss
        self._flush_soon()

    @_take.register
    def _(self, event: AnswersScored) -> None:
        self._changes |= {"phase_done": event.done, "phase_total": event.total}
        self._flush_soon()

    @_take.register
    def _(self, event: LogLine) -> None:
        self.log(event.text)
