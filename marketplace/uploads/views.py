"""The pages of uploading: files, report, card and publishing on one page.

Everything works as plain forms; `static/uploads/upload.js` sends the files through the API instead,
with progress, so that they need not pass through a form.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.files.uploadedfile import UploadedFile as FormFile
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST
from rest_framework.request import Request

from marketplace.accounts.visitors import signed_in
from marketplace.catalogue.forms import licence_options
from marketplace.catalogue.models import Adapter, BaseModel
from marketplace.uploads import services
from marketplace.uploads.errors import UploadError
from marketplace.uploads.findings import list_findings
from marketplace.uploads.forms import DraftForm, read_typed
from marketplace.uploads.models import Upload
from marketplace.uploads.services import Announced

MISSING = "There is no such upload."
MAX_TASKS = 50


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def new_upload(request: HttpRequest) -> HttpResponse:
    """Show the drop zone and the owner's drafts; a form with files begins a draft."""
    if request.method != "POST":
        return render(request, "uploads/new.html", _new_context(request))
    try:
        upload = services.create_upload(signed_in(request))
    except UploadError as error:
        context = _new_context(request) | {"refusals": _sentences(error)}
        return render(request, "uploads/new.html", context, status=error.status)
    return _receive_form(request, upload)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def show_draft(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Show a draft; posting publishes it, or keeps the card and says what is wrong."""
    upload = get_upload(request, pk)
    if upload.state == Upload.State.PUBLISHED:
        return _leave(upload)
    if request.method != "POST":
        return _show(request, upload, DraftForm.of_draft(upload))
    services.update_draft_card(upload, read_typed(request.POST))
    if "save" in request.POST:
        messages.success(request, "The draft is saved.")
        return redirect(upload)
    return _publish(request, upload)


def _publish(request: HttpRequest, upload: Upload) -> HttpResponse:
    form = DraftForm(request.POST)
    if not form.is_valid():
        return _show(request, upload, form, status=422)
    if form.cleaned_data["card"] != upload.card:  # a front matter was pasted into the card
        services.update_draft_card(upload, _cleaned(form))
    try:
        revision = services.publish_upload(upload)
    except UploadError as error:
        for name, texts in error.problems.items():
            for text in texts:
                form.add_error(name if name in form.fields else None, text)
        return _show(request, upload, form, status=error.status)
    messages.success(request, f"Published as {revision.adapter.full_name} {revision.label}.")
    return redirect(revision.adapter)


@login_required
@require_POST
def save_card(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Keep what is typed so far, asked for by script while the owner types."""
    upload = services.update_draft_card(get_upload(request, pk), read_typed(request.POST))
    taken = Adapter.objects.owned_by(upload.owner).filter(name__iexact=upload.name.strip())
    told = "is yours already: this becomes its next version" if taken.exists() else "is free"
    name = f" {upload.owner.username}/{upload.name.strip()} {told}." if upload.name.strip() else ""
    return HttpResponse(f"Draft saved.{name}", content_type="text/plain")


@login_required
@require_POST
def replace_files(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Take files from a form and have everything checked again."""
    return _receive_form(request, get_upload(request, pk))


@login_required
@require_POST
def check(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Have the files checked, against another base where one is chosen."""
    upload = get_upload(request, pk)
    name = request.POST.get("base_model", "")
    base_model = BaseModel.objects.ready().filter(name=name).first() if name else None
    _validate(request, upload, base_model)
    return redirect(upload)


@login_required
@require_POST
def remove_file(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Take one file out of the draft."""
    upload = get_upload(request, pk)
    try:
        services.remove_file(upload, request.POST.get("path", ""))
    except UploadError as error:
        _tell(request, error)
    return redirect(upload)


@login_required
@require_POST
def discard(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Delete a draft and its files."""
    services.discard_upload(get_upload(request, pk))
    messages.success(request, "The draft is discarded.")
    return redirect("uploads:new")


def get_upload(request: HttpRequest | Request, pk: UUID) -> Upload:
    """Return the visitor's own draft.

    Raises:
        Http404: it is missing or somebody else's.
    """
    drafts = Upload.objects.owned_by(request.user)
    upload = drafts.filter(pk=pk).select_related("owner", "base_model", "revision__adapter").first()
    if upload is None:
        raise Http404(MISSING)
    return upload


def _receive_form(request: HttpRequest, upload: Upload) -> HttpResponse:
    files = request.FILES.getlist("files")
    refused = False
    if not files:
        messages.error(request, "No file was chosen. Choose the two files of the adapter.")
    for file in files:
        refused |= not _receive_one(request, upload, file)
    if files and not refused:
        _validate(request, upload, None)
    return redirect(upload)


def _receive_one(request: HttpRequest, upload: Upload, file: FormFile[Any]) -> bool:
    try:
        announced = Announced(size=file.size)
        services.receive_file(upload, file.name or "", file.chunks(), announced)
    except UploadError as error:
        _tell(request, error)
        return False
    return True


def _validate(request: HttpRequest, upload: Upload, base_model: BaseModel | None) -> None:
    try:
        services.validate_upload(upload, base_model=base_model)
    except UploadError as error:
        _tell(request, error)


def _show(
    request: HttpRequest, upload: Upload, form: DraftForm, *, status: int = 200
) -> HttpResponse:
    tasks = Adapter.objects.visible_to(request.user).exclude(task="").order_by("task")
    context: dict[str, Any] = {
        "nav": "upload",
        "upload": upload,
        "limits": _limits(),
        "files": upload.files.all(),
        "form": form,
        "findings": list_findings(upload),
        "fitting": BaseModel.objects.filter(name__in=upload.fitting_bases),
        "bases": BaseModel.objects.ready(),
        "licences": licence_options(),
        "tasks": tasks.values_list("task", flat=True).distinct()[:MAX_TASKS],
    }
    return render(request, "uploads/draft.html", context, status=status)


def _leave(upload: Upload) -> HttpResponse:
    """A published draft has nothing to show: its adapter has."""
    adapter = upload.revision.adapter if upload.revision else None
    return redirect(adapter) if adapter and not adapter.deleted_at else redirect("uploads:new")


def _cleaned(form: DraftForm) -> dict[str, Any]:
    names = ("summary", "card", "licence", "language", "task", "training_data")
    tags = [tag.strip() for tag in form.cleaned_data["tags"].split(",") if tag.strip()]
    return {**{name: form.cleaned_data[name] for name in names}, "tags": tags}


def _new_context(request: HttpRequest) -> dict[str, Any]:
    drafts = Upload.objects.owned_by(request.user).open().select_related("base_model")
    return {"nav": "upload", "drafts": drafts.with_sizes(), "limits": _limits()}


def _limits() -> dict[str, Any]:
    """What the drop zone tells before anything is sent."""
    weights = int(settings.MAX_WEIGHTS_BYTES)
    return {"weights": weights, "weights_text": f"{weights // settings.MIB} MiB"}


def _tell(request: HttpRequest, error: UploadError) -> None:
    for text in _sentences(error):
        messages.error(request, text)


def _sentences(error: UploadError) -> list[str]:
    return [text for texts in error.problems.values() for text in texts]
