"""Bring a job to its end without a worker: the rows that a run would have written."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.utils import timezone

from marketplace.blobs.services import store_bytes
from marketplace.compositions.models import CompositionJob, Evaluation, LogLine, ResultFile
from tests.factories import summary_of, tiny_adapter_files


def make_score(correct: int, n: int, loss: float) -> dict[str, Any]:
    """One method on one set of rows."""
    share = correct / n
    return {"n": n, "correct": correct, "score": share, "interval": [0.1, 0.9], "loss": loss}


def make_report(job: CompositionJob) -> dict[str, Any]:
    """A report as composer writes it."""
    rows = [
        {
            "method": method,
            "label": label,
            "fit": make_score(right, 5, loss),
            "held_out": make_score(min(right, 3), 3, loss + 0.1),
        }
        for method, label, right, loss in (
            ("base", "Base", 0, 3.0),
            ("uniform", "Uniform mean", 1, 1.5),
            ("best_single", "Best single", 2, 0.6),
            ("composed", "Composed", 5, 0.2),
        )
    ]
    answers = [
        {
            "input": example.input,
            "expected": example.output,
            "split": example.split,
            "answers": {row["method"]: f"{row['method']} says" for row in rows},
            "correct": {row["method"]: row["method"] == "composed" for row in rows},
        }
        for example in job.examples.all()
    ]
    return {
        "rows": rows,
        "metric": "exact_match",
        "n_fit": 5,
        "n_held_out": 3,
        "verdict": {
            "headline": "No clear difference.",
            "detail": "Three rows are few.",
            "winner": "composed",
            "p_value": 0.25,
        },
        "answers": answers,
    }


def search(job: CompositionJob, evaluations: int = 12) -> None:
    """Write a running search."""
    CompositionJob.objects.filter(pk=job.pk).update(
        state="running",
        fence=1,
        attempts=1,
        phase="searching",
        phase_total=job.budget,
        phase_started_at=timezone.now(),
        started_at=timezone.now(),
        lease_expires_at=timezone.now() + timedelta(hours=1),
        base_loss=3.0,
        best_single_loss=0.6,
        uniform_loss=1.5,
    )
    items = list(job.ingredients.all())
    for place, item in enumerate(items):
        item.screening_loss = 1.0 + (len(items) - place) / 10
        item.save()
    for number in range(evaluations + 1):
        Evaluation.objects.create(
            job=job,
            number=number,
            weights=[] if number == 0 else [0.1 * number, -0.5, 0.0],
            loss=3.0 - number / 10,
            fit_loss=3.0 - number / 10,
            is_best=True,
        )
    LogLine.objects.create(job=job, text="claimed by a worker")
    job.refresh_from_db()


def finish(job: CompositionJob) -> CompositionJob:
    """Let it succeed."""
    search(job)
    files = tiny_adapter_files() | {"recipe.json": b"{}"}
    weights = [0.5, -0.25, 0.0]
    for item, weight in zip(job.ingredients.all(), weights, strict=False):
        item.weight, item.is_candidate = weight, True
        item.save()
    for path, content in files.items():
        ResultFile.objects.create(job=job, path=path, blob=store_bytes(content))
    job.move(
        frm="running",
        to="succeeded",
        report=make_report(job),
        recipe={"seed": job.seed},
        card="---\nlicence: MIT\n---\n# Composed\n",
        summary_json=summary_of(files).to_dict(),
        optimizer_resolved="greedy+gn",
        evaluations_spent=12,
        best_loss=0.2,
    )
    job.refresh_from_db()
    return job
