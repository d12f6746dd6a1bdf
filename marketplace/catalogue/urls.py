"""Addresses of the catalogue: fixed words first, then `owner/name`, which catches the rest.

The hub clients' addresses (/api/models, owner/name/resolve/...) are kept free for them.
"""

from __future__ import annotations

from django.urls import URLPattern, path

from marketplace.catalogue import access_api, api
from marketplace.catalogue.views import access, adapter, base_models, files, listing, owning, tray

_ADAPTER = "<str:owner>/<str:name>"

urlpatterns: list[URLPattern] = [
    path("adapters", listing.list_adapters, name="list"),
    path("adapters/tags", listing.suggest_tags, name="suggest_tags"),
    path("adapters/preview", owning.preview_card, name="preview"),
    path("adapters/tray/add", tray.add, name="tray_add"),
    path("adapters/tray/remove", tray.remove, name="tray_remove"),
    path("adapters/tray/clear", tray.clear, name="tray_clear"),
    path("adapters/requests", access.list_requests, name="requests"),
    path("base-models", base_models.list_base_models, name="base_models"),
    path("base-models/<path:name>", base_models.show_base_model, name="base_model"),
    path("<str:owner>", listing.show_owner, name="owner"),
    path(_ADAPTER, adapter.show_adapter, name="adapter"),
    path(f"{_ADAPTER}/like", adapter.like, name="like"),
    path(f"{_ADAPTER}/edit", owning.edit_card, name="edit"),
    path(f"{_ADAPTER}/delete", owning.delete, name="delete"),
    path(f"{_ADAPTER}/access", access.show_access, name="access"),
    path(f"{_ADAPTER}/access/gate", access.set_gate, name="set_gate"),
    path(f"{_ADAPTER}/access/ask", access.ask, name="ask_access"),
    path(f"{_ADAPTER}/access/withdraw", access.withdraw, name="withdraw_request"),
    path(f"{_ADAPTER}/access/decide", access.decide, name="decide_access"),
    path(f"{_ADAPTER}/access/grant", access.grant, name="grant_access"),
    path(f"{_ADAPTER}/revisions/<str:label>", adapter.show_revision, name="revision"),
    path(f"{_ADAPTER}/revisions/<str:label>/yank", owning.yank, name="yank"),
    path(f"{_ADAPTER}/revisions/<str:label>/unyank", owning.unyank, name="unyank"),
    path(f"{_ADAPTER}/download/<str:label>/<path:path>", files.download_file, name="download"),
    path(f"{_ADAPTER}/zip/<str:label>", files.download_zip, name="zip"),
]
api_urlpatterns: list[URLPattern] = [
    path("adapters", api.AdapterList.as_view(), name="api_adapters"),
    path("adapters/facets", api.FacetList.as_view(), name="api_facets"),
    path(f"adapters/{_ADAPTER}", api.AdapterDetail.as_view(), name="api_adapter"),
    path(f"adapters/{_ADAPTER}/like", api.AdapterLike.as_view(), name="api_like"),
    path(f"adapters/{_ADAPTER}/access", access_api.OwnRequest.as_view(), name="api_access"),
    path(
        f"adapters/{_ADAPTER}/access/requests",
        access_api.AccessList.as_view(),
        name="api_access_requests",
    ),
    path(
        f"adapters/{_ADAPTER}/access/requests/<str:user>",
        access_api.AccessDecision.as_view(),
        name="api_access_decision",
    ),
    path(f"adapters/{_ADAPTER}/lineage", api.AdapterLineage.as_view(), name="api_lineage"),
    path(f"adapters/{_ADAPTER}/revisions", api.RevisionList.as_view(), name="api_revisions"),
    path(
        f"adapters/{_ADAPTER}/revisions/<str:label>",
        api.RevisionDetail.as_view(),
        name="api_revision",
    ),
    path(
        f"adapters/{_ADAPTER}/revisions/<str:label>/yank",
        api.RevisionYank.as_view(),
        name="api_yank",
    ),
    path("files/<str:sha256>", api.FileLookup.as_view(), name="api_file"),
    path("tags", api.TagList.as_view(), name="api_tags"),
    path("base-models", api.BaseModelList.as_view(), name="api_base_models"),
    path("base-models/<path:name>", api.BaseModelDetail.as_view(), name="api_base_model"),
]
