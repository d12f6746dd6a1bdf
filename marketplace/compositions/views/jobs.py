"""Pages of jobs: the list, one job, live or done, and what its owner may do with it."""

from __future__ import annotations

import uuid
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from marketplace.accounts.visitors import signed_in
from marketplace.compositions import services
from marketplace.compositions.answers import read_answers
from marketplace.compositions.forms import PublishForm
from marketplace.compositions.models import CompositionJob, Ingredient
from marketplace.compositions.progress import read_progress
from marketplace.compositions.services import CompositionError
from marketplace.compositions.views.fetching import get_job
from marketplace.live.models import Event

PAGE_SIZE = 25
LOG_LINES = 200
HINTS = {"base": "no adapter", "prompting": "the fit rows in its prompt"}


@login_required
@require_safe
def list_jobs(request: HttpRequest) -> HttpResponse:
    """List the visitor's own jobs, the newest first."""
    jobs = CompositionJob.objects.owned_by(request.user)
    page = Paginator(jobs.select_related("base_model"), PAGE_SIZE).get_page(request.GET.get("page"))
    context = {"nav": "jobs", "page": page, "query": ""}
    return render(request, "compositions/list.html", context)


@login_required
@require_safe
def show_job(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Show a job: its progress while it runs, its report once it is done."""
    job = get_job(request, pk)
    form = None
    if job.state == CompositionJob.State.SUCCEEDED and job.published is None:
        form = PublishForm.filled(services.prefill_publication(job))
    return render_job(request, job, form)


@login_required
@require_safe
def show_progress(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Answer with the part of a job's page that changes."""
    job = get_job(request, pk)
    return render(request, "compositions/_live.html", _live_context(job))


@login_required
@require_safe
def show_log(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Send the whole log as text."""
    lines = get_job(request, pk).log.all()
    text = "".join(f"{line.created_at:%Y-%m-%d %H:%M:%S}  {line.text}\n" for line in lines)
    return HttpResponse(text, content_type="text/plain; charset=utf-8")


@login_required
@require_POST
def cancel(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Cancel it; a job that is over stays as it is."""
    job = services.cancel_composition(get_job(request, pk))
    return redirect(job.get_absolute_url())


@login_required
@require_POST
def retry(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Queue a failed or cancelled job again."""
    job = get_job(request, pk)
    try:
        services.retry_composition(job)
    except CompositionError as error:
        messages.error(request, str(error))
    return redirect(job.get_absolute_url())


@login_required
@require_POST
def clone(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Run the same once more at once; the compose page with `?clone=` lets one change it first."""
    job = get_job(request, pk)
    try:
        fresh = services.clone_composition(
            job, by=signed_in(request), idempotency_key=uuid.uuid4().hex
        )
    except CompositionError as error:
        messages.error(request, str(error))
        return redirect(f"{reverse('compositions:new')}?clone={job.pk}")
    return redirect(fresh.get_absolute_url())


@login_required
@require_POST
def forget(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Delete the rows of a job that is over."""
    job = get_job(request, pk)
    try:
        services.forget_examples(job)
        messages.success(request, "The rows are deleted. Weights and figures stay.")
    except CompositionError as error:
        messages.error(request, str(error))
    return redirect(job.get_absolute_url())


def render_job(
    request: HttpRequest, job: CompositionJob, form: PublishForm | None, *, status: int = 200
) -> HttpResponse:
    """Draw the whole page, with the publish dialog where there is one."""
    last = Event.objects.filter(channel=job.channel).order_by("-pk").values_list("pk", flat=True)
    context = _live_context(job) | {
        "nav": "jobs",
        "form": form,
        "last_event": last.first() or 0,
        "rows": _count_rows(job),
        "answers": read_answers(job.report or {}, show_all=request.GET.get("answers") == "all"),
        "shows_all_answers": request.GET.get("answers") == "all",
        "hints": _read_hints(job),
        "files": job.results.select_related("blob") if job.is_finished else (),
    }
    if form is not None:
        context |= {
            "prefilled": services.prefill_publication(job),
            "winner_url": _find_winner_url(job),
        }
    return render(request, "compositions/job.html", context, status=status)


def _live_context(job: CompositionJob) -> dict[str, Any]:
    lines = list(job.log.order_by("-pk")[:LOG_LINES])
    return {"job": job, "progress": read_progress(job), "log": reversed(lines)}


def _count_rows(job: CompositionJob) -> dict[str, int]:
    """How many rows there are; the report knows it after the rows are forgotten."""
    report = job.report or {}
    kept = list(job.examples.values_list("split", flat=True))
    return {
        "fit": report.get("n_fit") or kept.count("fit"),
        "held_out": report.get("n_held_out") or kept.count("held_out"),
        "kept": len(kept),
    }


def _read_hints(job: CompositionJob) -> dict[str, str]:
    recipe = job.recipe or {}
    candidates = [item.name for item in job.ingredients.all() if item.is_candidate]
    count = len(candidates)
    best = _find_best_alone(job)
    return HINTS | {
        "uniform": f"{count} adapters at 1/{count}" if count else "",
        "best_single": recipe.get("best_single") or (best.name if best else ""),
        "composed": f"{count} adapters, {'learned' if job.is_searched else 'chosen'} weights",
    }


def _find_best_alone(job: CompositionJob) -> Ingredient | None:
    return min(
        (item for item in job.ingredients.all() if item.screening_loss is not None),
        key=lambda item: item.screening_loss or 0,
        default=None,
    )


def _find_winner_url(job: CompositionJob) -> str:
    """Where the adapter lives that did best, if it is one of the ingredients."""
    winner = (job.report or {}).get("verdict", {}).get("winner")
    best = _find_best_alone(job) if winner == "best_single" else None
    return best.revision.adapter.get_absolute_url() if best else ""
