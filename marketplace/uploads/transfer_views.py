"""The pages of imports and exports: begin one, watch it, stop it, try again; one's own lists.

The same services as `transfer_api`. A job of somebody else answers like a missing one.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from marketplace.accounts.visitors import signed_in
from marketplace.catalogue.models import Adapter, Revision
from marketplace.catalogue.views.fetching import get_own_adapter
from marketplace.live.models import Event
from marketplace.uploads import services
from marketplace.uploads.errors import UploadError
from marketplace.uploads.hub_hosts import list_hubs
from marketplace.uploads.models import Export, Import
from marketplace.uploads.services import ExportRequest, ImportRequest
from marketplace.uploads.transfer_api import find_own_revision, get_transfer
from marketplace.uploads.transfer_files import list_files
from marketplace.uploads.transfer_forms import ExportForm, ImportForm

PAGE_SIZE = 25
SHOWN_BESIDE = 5
PREFILLED = ("repo_id", "hub", "revision", "name")
PHASES = {
    "looking": "Asking the hub what it has",
    "fetching": "Fetching the files",
    "checking": "Checking the files",
    "publishing": "Publishing",
    "reading": "Laying out the files",
    "creating": "Making the repository there",
    "sending": "Sending the files",
}
_MODELS: dict[str, Any] = {"import": Import, "export": Export}


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def new_import(request: HttpRequest) -> HttpResponse:
    """Ask what to fetch from where, and begin."""
    initial = {name: request.GET[name] for name in PREFILLED if name in request.GET}
    form = ImportForm(request.POST or None, initial=initial)
    status = 200
    if request.method == "POST":
        status = 422
        if form.is_valid():
            asked = dict(form.cleaned_data)
            try:
                job = services.start_import(
                    signed_in(request), ImportRequest(repo=asked.pop("repo_id"), **asked)
                )
            except UploadError as error:
                form.add_problems(error)
                status = error.status
            else:
                return redirect(job)
    recent = Import.objects.owned_by(request.user)[:SHOWN_BESIDE]
    context = {"nav": "upload", "form": form, "recent": recent, "hubs": list_hubs()}
    return render(request, "uploads/new_import.html", context, status=status)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def new_export(request: HttpRequest) -> HttpResponse:
    """Ask where to push a version of the adapter that `?adapter=` names, and begin."""
    owner, _, name = request.GET.get("adapter", "").partition("/")
    adapter = get_own_adapter(request, owner, name)
    revisions = Revision.objects.on_shelf().filter(adapter=adapter, number__isnull=False)
    labels = [revision.label for revision in revisions.order_by("-number")]
    initial = {"revision": request.GET.get("revision", "")}
    form = ExportForm(request.POST or None, labels=labels, initial=initial)
    status = 200
    if request.method == "POST":
        status = 422
        if form.is_valid():
            asked = dict(form.cleaned_data)
            revision = find_own_revision(request, adapter.full_name, asked.pop("revision"))
            try:
                order = ExportRequest(revision=revision, **asked)
                job = services.start_export(signed_in(request), order)
            except UploadError as error:
                form.add_problems(error)
                status = error.status
            else:
                return redirect(job)
    context = {"nav": "catalogue", "form": form, "adapter": adapter, "hubs": list_hubs()}
    context["recent"] = _exports_of(request, adapter)
    return render(request, "uploads/new_export.html", context, status=status)


@login_required
@require_safe
def list_transfers(request: HttpRequest, kind: str) -> HttpResponse:
    """List the visitor's own imports or exports, the newest first."""
    rows = _MODELS[kind].objects.owned_by(request.user).select_related("revision__adapter")
    page = Paginator(rows, PAGE_SIZE).get_page(request.GET.get("page"))
    context = {"nav": "upload", "kind": kind, "page": page, "query": ""}
    return render(request, "uploads/transfers.html", context)


@login_required
@require_safe
def show_transfer(request: HttpRequest, kind: str, pk: UUID) -> HttpResponse:
    """Show one: its progress while it runs, what became of it once it is over."""
    job = get_transfer(request, kind, pk)
    last = Event.objects.filter(channel=job.channel).order_by("-pk").values_list("pk", flat=True)
    context = _live_context(job, kind) | {
        "nav": "upload",
        "kind": kind,
        "last_event": last.first() or 0,
        "draft": _find_draft(job) if kind == "import" else None,
        "result_url": _find_result(job) if kind == "export" else "",
    }
    return render(request, "uploads/transfer.html", context)


@login_required
@require_safe
def show_progress(request: HttpRequest, kind: str, pk: UUID) -> HttpResponse:
    """Answer with the part of its page that changes."""
    job = get_transfer(request, kind, pk)
    return render(request, "uploads/_transfer_live.html", _live_context(job, kind))


@login_required
@require_POST
def cancel(request: HttpRequest, kind: str, pk: UUID) -> HttpResponse:
    """Stop it; one that is over stays as it is."""
    return redirect(services.cancel_transfer(get_transfer(request, kind, pk)))


@login_required
@require_POST
def retry(request: HttpRequest, kind: str, pk: UUID) -> HttpResponse:
    """Queue a failed or cancelled one again, with the token typed anew."""
    job = get_transfer(request, kind, pk)
    token = request.POST.get("token", "")
    try:
        if kind == "export" and not token.strip():
            raise UploadError("The token is not kept: give it once more.")
        services.retry_transfer(job, token=token)
    except UploadError as error:
        messages.error(request, str(error))
    return redirect(job)


def _live_context(job: Any, kind: str) -> dict[str, Any]:
    phase = PHASES.get(job.phase, "Begins")
    if job.state == job.State.QUEUED:
        phase = "Waiting for a worker"
    sentence = f"{phase}, {job.percent} %" if job.bytes_total else phase
    return {
        "job": job,
        "kind": kind,
        "phase": phase,
        "sentence": sentence,
        "files": list_files(job),
    }


def _find_draft(job: Import) -> Any:
    """The draft that an import left for its owner to mend, if there is one."""
    upload = job.upload
    return upload if upload and upload.is_open and job.is_finished else None


def _find_result(job: Export) -> str:
    """Where the pushed files are; what the hub said, as long as it is an address of its own."""
    is_there = job.commit_url.startswith(f"{job.hub}/")
    return job.commit_url if is_there else job.place


def _exports_of(request: HttpRequest, adapter: Adapter) -> Any:
    mine = Export.objects.owned_by(request.user).filter(revision__adapter=adapter)
    return mine.select_related("revision")[:SHOWN_BESIDE]
