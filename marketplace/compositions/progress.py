"""How far a job is, read from its rows for people: figures, weights so far, place in the queue.

Nothing is written here. The page asks again at every event of the job's channel, so the number of
queries stays small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.utils import timezone

from marketplace.compositions.models import CompositionJob, Evaluation, Ingredient

PHASES = {
    "": "Starting",
    "loading": "Loading the base model",
    "screening": "Scoring every adapter alone",
    "searching": "Searching weights",
    "training": "Training a LoRA on the rows",
    "merging": "Merging",
    "validating": "Cross-validating",
    "scoring": "Answering rows for the report",
    "writing": "Writing the adapter",
}
TRAINED, GRADIENTS = "LoRA trained on your rows", "with gradients"
ANNOUNCED = 10  # a screen reader hears of every tenth evaluation
LEAST_TO_GUESS = 3


@dataclass(frozen=True)
class WeightRow:
    """One candidate with its weight, as `weight_bars` draws it."""

    name: str
    weight: float
    url: str
    note: str = ""


@dataclass(frozen=True)
class JobProgress:
    """Everything of a job that changes while it runs."""

    job: CompositionJob
    evaluations: Sequence[Evaluation]
    best: Evaluation | None
    weights: Sequence[WeightRow]
    place: int  # in the queue, from 1; 0 where it does not wait
    seconds_left: float | None

    @property
    def spent(self) -> int:
        """Evaluations of the search so far; number 0 is the base alone."""
        return self.evaluations[-1].number if self.evaluations else 0

    @property
    def budget(self) -> int:
        """Evaluations that the search may take."""
        # A quick LoRA is tried once, after the search.
        return (self.job.budget if self.job.is_searched else 1) + self.job.quick_lora

    @property
    def phase(self) -> str:
        """What it does, in words."""
        return PHASES.get(self.job.phase, self.job.phase)

    @property
    def gain_on_single(self) -> float | None:
        """How much lower the best loss is than that of the best single adapter."""
        if self.best is None or self.job.best_single_loss is None:
            return None
        return self.best.fit_loss - self.job.best_single_loss

    @property
    def sentence(self) -> str:
        """What a screen reader announces; it changes at every tenth evaluation and every state."""
        job = self.job
        if job.state == CompositionJob.State.QUEUED:
            return f"Queued, place {self.place}."
        if job.state != CompositionJob.State.RUNNING:
            return f"The job {job.get_state_display()}."
        told = self.spent - self.spent % ANNOUNCED
        seen = [row for row in self.evaluations if row.number <= told and row.is_best]
        if not told or not seen:
            return f"{self.phase}."
        return f"Evaluation {told} of {self.budget}, best fit loss {seen[-1].fit_loss:.2f}."


def read_progress(job: CompositionJob) -> JobProgress:
    """Read where the job stands."""
    evaluations = list(job.evaluations.all())
    best = next((row for row in reversed(evaluations) if row.is_best), None)
    return JobProgress(
        job=job,
        evaluations=evaluations,
        best=best,
        weights=_read_weights(job, evaluations, best),
        place=_read_place(job),
        seconds_left=_guess_seconds_left(job, evaluations, timezone.now()),
    )


def _read_weights(
    job: CompositionJob, evaluations: Sequence[Evaluation], best: Evaluation | None
) -> list[WeightRow]:
    """Candidates in the search's order, the best alone first, with the best weights so far.

    A LoRA that was trained on the rows comes last, though it is no adapter of the catalogue.
    """
    items = list(job.ingredients.select_related("revision__adapter__owner"))
    found = [item for item in items if item.weight is not None]
    if found:
        found.sort(key=_by_screening)
        rows = [_weight_row(item, float(item.weight or 0)) for item in found]
        quick = (job.recipe or {}).get("quick_lora")
        return [*rows, WeightRow(TRAINED, quick["weight"], "", GRADIENTS)] if quick else rows
    if best is None or not best.weights:
        return []
    screened = sorted(
        (item for item in items if item.screening_loss is not None), key=_by_screening
    )
    # Only the evaluation after a training has a weight more than the first one of the search.
    n = len(evaluations[0].weights) or len(best.weights)
    pairs = zip(screened, best.weights[:n], strict=False)
    rows = [_weight_row(item, float(weight)) for item, weight in pairs]
    trained = [WeightRow(TRAINED, float(weight), "", GRADIENTS) for weight in best.weights[n:]]
    return rows + trained


def _by_screening(item: Ingredient) -> tuple[float, int]:
    loss = float("inf") if item.screening_loss is None else item.screening_loss
    return (loss, item.position)


def _weight_row(item: Ingredient, weight: float) -> WeightRow:
    revision = item.revision
    url = f"{revision.adapter.get_absolute_url()}/revisions/{revision.label}"
    return WeightRow(item.name, weight, url, revision.label)


def _read_place(job: CompositionJob) -> int:
    if job.state != CompositionJob.State.QUEUED:
        return 0
    return CompositionJob.objects.queued().filter(created_at__lt=job.created_at).count() + 1


def _guess_seconds_left(
    job: CompositionJob, evaluations: Sequence[Evaluation], now: datetime
) -> float | None:
    """Guess from the pace of the running phase; the phases after it are not known."""
    is_searching = job.state == CompositionJob.State.RUNNING and job.phase == "searching"
    spent = evaluations[-1].number if evaluations else 0
    if not is_searching or spent < LEAST_TO_GUESS or job.phase_started_at is None:
        return None
    seconds = (now - job.phase_started_at).total_seconds()
    return max(0.0, seconds / spent * (job.budget - spent))
