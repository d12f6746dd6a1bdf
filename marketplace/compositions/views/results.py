"""What comes out of a job: files, the whole adapter as a zip, the report, and publishing it."""

from __future__ import annotations

import json
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST, require_safe

from marketplace.blobs.responses import blob_response
from marketplace.blobs.zips import ZipEntry, zip_response
from marketplace.compositions import services
from marketplace.compositions.forms import PublishForm
from marketplace.compositions.models import CompositionJob
from marketplace.compositions.services import CompositionError
from marketplace.compositions.views.fetching import MISSING, get_job
from marketplace.compositions.views.jobs import render_job

MAX_PATH = 128
PRIVATE = {"Cache-Control": "private, no-store"}


@login_required
@require_safe
def download_file(request: HttpRequest, pk: UUID, path: str) -> HttpResponseBase:
    """Send one file of the result."""
    return file_response(request, get_job(request, pk), path)


def file_response(request: HttpRequest, job: CompositionJob, path: str) -> HttpResponseBase:
    """Send one file of a job's result; only what the job made can be named.

    Raises:
        Http404: it made no such file.
    """
    if len(path) > MAX_PATH or "\x00" in path:
        raise Http404(MISSING)
    file = job.results.filter(path=path).select_related("blob").first()
    if file is None:
        raise Http404(MISSING)
    filename = path.rpartition("/")[2]
    return blob_response(request, file.blob, filename=filename, headers=PRIVATE)


@login_required
@require_safe
def download_zip(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    """Send the adapter as an archive."""
    job = get_job(request, pk)
    entries = [ZipEntry(file.path, file.blob) for file in job.results.select_related("blob")]
    if not entries:
        raise Http404(MISSING)
    response = zip_response(request, entries, filename=f"job-{job.number}.zip")
    response["Cache-Control"] = PRIVATE["Cache-Control"]
    return response


@login_required
@require_safe
def download_report(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Send the report as JSON."""
    job = get_job(request, pk)
    if job.report is None:
        raise Http404(MISSING)
    response = HttpResponse(
        json.dumps(job.report, indent=2, ensure_ascii=False), content_type="application/json"
    )
    response["Content-Disposition"] = f'attachment; filename="job-{job.number}-report.json"'
    return response


@login_required
@require_safe
def show_recipe(request: HttpRequest, pk: UUID) -> JsonResponse:
    """Send the recipe as JSON."""
    job = get_job(request, pk)
    if job.recipe is None:
        raise Http404(MISSING)
    return JsonResponse(job.recipe, json_dumps_params={"indent": 2})


@login_required
@require_POST
def publish(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Put the result on the shelf; a second time leads to what is there."""
    job = get_job(request, pk)
    form = PublishForm(request.POST)
    if not form.is_valid():
        return render_job(request, job, form, status=422)
    try:
        revision = services.publish_composition(job, form.request())
    except CompositionError as error:
        form.add_problems(error.problems)
        return render_job(request, job, form, status=422)
    messages.success(request, f"Published as {revision.adapter.full_name} {revision.label}.")
    return redirect(revision.adapter.get_absolute_url())
