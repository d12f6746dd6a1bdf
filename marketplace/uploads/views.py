"""The upload page: files, report, card and publish, all on one page; nothing typed is ever lost."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from marketplace.accounts.models import User
from marketplace.catalogue.forms import licence_options
from marketplace.catalogue.models import BaseModel
from marketplace.uploads import services
from marketplace.uploads.errors import UploadError
from marketplace.uploads.forms import DraftForm
from marketplace.uploads.models import Upload


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def new(request: HttpRequest) -> HttpResponse:
    """Show an empty page with the drafts there are; a post begins a draft."""
    user = _user(request)
    if request.method == "POST":
        try:
            upload = services.create_upload(user)
        except UploadError as error:
            messages.error(request, str(error))
            return redirect("uploads:new")
        return _take_posted_files(request, upload)
    drafts = Upload.objects.owned_by(user).open()
    context = {"nav": "upload", "drafts": drafts, "max_bytes": _max_bytes()}
    return render(request, "uploads/new.html", context)


@login_required
@require_http_methods(["GET", "HEAD"])
def draft(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Show a draft where it stands."""
    upload = _find(request, pk)
    if upload.state == Upload.State.PUBLISHED and upload.revision:
        return redirect(upload.revision.adapter.get_absolute_url())
    return _show(request, upload, DraftForm.of_draft(upload))


@login_required
@require_POST
def add_files(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Take files from a plain form, for browsers without scripts."""
    return _take_posted_files(request, _find(request, pk))


@login_required
@require_POST
def check(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Have the files checked, against another base where one is chosen."""
    upload = _find(request, pk)
    chosen = BaseModel.objects.ready().filter(name=request.POST.get("base_model", "")).first()
    try:
        services.validate_upload(upload, base_model=chosen)
    except UploadError as error:
        messages.error(request, str(error))
    return redirect(upload)


@login_required
@require_POST
def publish(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Keep the card as typed; publish it unless the button only saves."""
    upload = _find(request, pk)
    form = DraftForm(request.POST)
    try:
        services.update_draft_card(upload, form.typed())
        if "save" in request.POST:
            messages.success(request, "The draft is saved.")
            return redirect(upload)
        if not form.is_valid():
            return _show(request, upload, form, status=422)
        revision = services.publish_upload(upload)
    except UploadError as error:
        for name, texts in error.problems.items():
            for text in texts:
                form.add_error(name if name in form.fields else None, text)
        return _show(request, upload, form, status=422)
    messages.success(request, f"Published as {revision.adapter.full_name} {revision.label}.")
    return redirect(revision.adapter)


@login_required
@require_POST
def discard(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Delete the draft."""
    services.discard_upload(_find(request, pk))
    messages.success(request, "The draft is deleted.")
    return redirect("uploads:new")


def _take_posted_files(request: HttpRequest, upload: Upload) -> HttpResponse:
    try:
        for file in request.FILES.getlist("files"):
            chunks = file.chunks(1024 * 1024)
            services.receive_file(upload, str(file.name), chunks, size=file.size)
        if upload.files.exists():
            services.validate_upload(upload)
    except UploadError as error:
        messages.error(request, str(error))
    return redirect(upload)


def _show(
    request: HttpRequest, upload: Upload, form: DraftForm, *, status: int = 200
) -> HttpResponse:
    context: dict[str, Any] = {
        "nav": "upload",
        "upload": upload,
        "files": upload.files.all(),
        "summary": upload.adapter_summary,
        "problems": upload.found_problems,
        "bases": BaseModel.objects.ready(),
        "form": form,
        "licences": licence_options(),
        "max_bytes": _max_bytes(),
        "is_ready": upload.state == Upload.State.READY,
        "is_refused": upload.state == Upload.State.REFUSED,
    }
    return render(request, "uploads/draft.html", context, status=status)


def _find(request: HttpRequest, pk: UUID) -> Upload:
    upload = Upload.objects.owned_by(request.user).filter(pk=pk).first()
    if upload is None:
        raise Http404
    return upload


def _user(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # noqa: S101 (login_required saw to it)
    return request.user


def _max_bytes() -> int:
    return int(settings.MAX_WEIGHTS_BYTES)
