"""The list of models: search and filters, page by page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from django.db.models.fields.json import KeyTextTransform
from django.http import HttpRequest, JsonResponse

from marketplace.catalogue.models import Adapter, RevisionFile
from marketplace.hub.access import READS, Caller, hub_view
from marketplace.hub.documents import FIELDS, LISTED_FIELDS, Model, make_document
from marketplace.hub.filters import filter_models, read_page
from marketplace.hub.parameters import is_true, link_next, read_list

FACTS = frozenset({"tags", "cardData", "config"})  # fields made of adapter_config.json as well
COLUMNS = (
    "full_name", "visibility", "gated", "licence", "language", "likes", "downloads",
    "trending", "created_at", "updated_at", "owner_id",
    "base_model__name", "base_model__is_seq2seq",
    "latest__oid", "latest__dtype", "latest__parameter_count", "latest__weights_sha256",
)  # fmt: skip


@hub_view(*READS)
def list_models(request: HttpRequest, caller: Caller) -> JsonResponse:
    """List what the caller may know of: everything public, and their own."""
    page = read_page(request)
    fields = _read_fields(request)
    rows = Adapter.objects.visible_to(caller.user).select_related("base_model", "latest")
    rows = rows.only(*COLUMNS).prefetch_related("tags")
    if fields & FACTS:
        rows = rows.annotate(
            said_task=KeyTextTransform("task_type", "latest__summary_json"),
            said_base=KeyTextTransform("base_model_name_or_path", "latest__summary_json"),
        )
    found = page.cut(filter_models(rows, request.GET))
    shown = found[: page.size]
    files = _list_files(shown) if "siblings" in fields else None
    documents = [make_document(_model(adapter, files), fields) for adapter in shown]
    response = JsonResponse(documents, safe=False)
    if len(found) > page.size:
        link_next(response, request, "/api/models", cursor=page.cursor_after(shown[-1]))
    return response


def _read_fields(request: HttpRequest) -> frozenset[str]:
    wanted = frozenset(read_list(request.GET, "expand"))
    if wanted:
        return wanted & FIELDS
    fields = set(LISTED_FIELDS)
    if is_true(request.GET, "full"):
        fields |= {"siblings", "cardData"}
    fields |= {name for name in ("cardData", "config") if is_true(request.GET, name)}
    return frozenset(fields)


def _list_files(adapters: Sequence[Adapter]) -> dict[int, list[RevisionFile]]:
    files: dict[int, list[RevisionFile]] = defaultdict(list)
    revisions = [adapter.latest_id for adapter in adapters if adapter.latest_id]
    for file in RevisionFile.objects.filter(revision__in=revisions).order_by("path"):
        files[file.revision_id].append(file)
    return files


def _model(adapter: Adapter, files: dict[int, list[RevisionFile]] | None) -> Model:
    latest = adapter.latest
    held = None if files is None else files.get(latest.pk, []) if latest else []
    return Model(
        adapter,
        latest,
        tags=[tag.name for tag in adapter.tags.all()],
        task_type=getattr(adapter, "said_task", None),
        named_base=getattr(adapter, "said_base", None),
        files=held,
    )
