"""What a model is: `/api/models/<owner>/<name>`, of its newest or of a named revision."""

from __future__ import annotations

from django.http import HttpRequest, JsonResponse

from marketplace.catalogue.models import Adapter, Revision
from marketplace.hub.access import READS, Caller, hub_view
from marketplace.hub.addresses import read_place
from marketplace.hub.documents import FIELDS, RARE_FIELDS, Model, make_document
from marketplace.hub.entries import list_files
from marketplace.hub.errors import RevisionNotFound
from marketplace.hub.finding import MAIN, find_adapter, find_revision
from marketplace.hub.parameters import is_true, read_list


@hub_view(*READS)
def show_model(request: HttpRequest, caller: Caller, owner: str, name: str) -> JsonResponse:
    """Describe the adapter at the head of main."""
    adapter = find_adapter(request, caller, owner, name)
    try:
        revision = find_revision(adapter, caller, MAIN)
    except RevisionNotFound:  # everything on it was yanked; the adapter is there all the same
        revision = None
    return _answer(request, adapter, revision)


@hub_view(*READS)
def show_revision(request: HttpRequest, caller: Caller, owner: str, name: str) -> JsonResponse:
    """Describe the adapter at a branch, tag or full id."""
    adapter = find_adapter(request, caller, owner, name)
    place = read_place(request, skip=5)
    return _answer(request, adapter, find_revision(adapter, caller, place.revision))


def _answer(request: HttpRequest, adapter: Adapter, revision: Revision | None) -> JsonResponse:
    wanted = frozenset(read_list(request.GET, "expand"))
    fields = wanted & FIELDS if wanted else FIELDS - RARE_FIELDS
    summary = (revision.summary_json if revision else None) or {}
    model = Model(
        adapter,
        revision,
        tags=list(adapter.tags.values_list("name", flat=True)),
        task_type=summary.get("task_type"),
        named_base=summary.get("base_model_name_or_path"),
        files=list_files(revision) if revision and "siblings" in fields else None,
        with_sizes=is_true(request.GET, "blobs"),
    )
    return JsonResponse(make_document(model, fields))
