"""Addresses of the uploads app."""

from __future__ import annotations

from django.urls import URLPattern, path

from marketplace.uploads import api, transfer_api, transfer_views, views


def _transfer_urls(kind: str) -> list[URLPattern]:
    """The pages of imports or exports."""
    one, kwargs = f"{kind}s/<uuid:pk>", {"kind": kind}
    return [
        path(f"{kind}s", transfer_views.list_transfers, kwargs, name=f"{kind}s"),
        path(one, transfer_views.show_transfer, kwargs, name=kind),
        path(f"{one}/progress", transfer_views.show_progress, kwargs, name=f"{kind}_progress"),
        path(f"{one}/cancel", transfer_views.cancel, kwargs, name=f"cancel_{kind}"),
        path(f"{one}/retry", transfer_views.retry, kwargs, name=f"retry_{kind}"),
    ]


urlpatterns: list[URLPattern] = [
    path("upload", views.new_upload, name="new"),
    path("upload/<uuid:pk>", views.show_draft, name="draft"),
    path("upload/<uuid:pk>/card", views.save_card, name="save_card"),
    path("upload/<uuid:pk>/files", views.replace_files, name="files"),
    path("upload/<uuid:pk>/remove", views.remove_file, name="remove_file"),
    path("upload/<uuid:pk>/check", views.check, name="check"),
    path("upload/<uuid:pk>/discard", views.discard, name="discard"),
    path("import", transfer_views.new_import, name="new_import"),
    path("export", transfer_views.new_export, name="new_export"),
    *_transfer_urls("import"),
    *_transfer_urls("export"),
]
api_urlpatterns: list[URLPattern] = [
    path("uploads", api.UploadList.as_view(), name="api_uploads"),
    path("uploads/<uuid:pk>", api.UploadDetail.as_view(), name="api_upload"),
    path("uploads/<uuid:pk>/files/<str:path>", api.UploadFile.as_view(), name="api_upload_file"),
    path("uploads/<uuid:pk>/validate", api.UploadValidate.as_view(), name="api_upload_validate"),
    path("uploads/<uuid:pk>/publish", api.UploadPublish.as_view(), name="api_upload_publish"),
    path("imports", transfer_api.ImportList.as_view(), name="api_imports"),
    path("imports/<uuid:pk>", transfer_api.ImportDetail.as_view(), name="api_import"),
    path("imports/<uuid:pk>/cancel", transfer_api.ImportCancel.as_view(), name="api_import_cancel"),
    path("imports/<uuid:pk>/retry", transfer_api.ImportRetry.as_view(), name="api_import_retry"),
    path("exports", transfer_api.ExportList.as_view(), name="api_exports"),
    path("exports/<uuid:pk>", transfer_api.ExportDetail.as_view(), name="api_export"),
    path("exports/<uuid:pk>/cancel", transfer_api.ExportCancel.as_view(), name="api_export_cancel"),
    path("exports/<uuid:pk>/retry", transfer_api.ExportRetry.as_view(), name="api_export_retry"),
]
