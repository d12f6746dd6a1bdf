"""Addresses of the uploads app."""

from __future__ import annotations

from django.urls import URLPattern, path

from marketplace.uploads import api, views

urlpatterns: list[URLPattern] = [
    path("upload", views.new, name="new"),
    path("upload/<uuid:pk>", views.draft, name="draft"),
    path("upload/<uuid:pk>/files", views.add_files, name="add_files"),
    path("upload/<uuid:pk>/check", views.check, name="check"),
    path("upload/<uuid:pk>/publish", views.publish, name="publish"),
    path("upload/<uuid:pk>/discard", views.discard, name="discard"),
]
api_urlpatterns: list[URLPattern] = [
    path("uploads", api.Uploads.as_view(), name="api_uploads"),
    path("uploads/<uuid:pk>", api.OneUpload.as_view(), name="api_upload"),
    path("uploads/<uuid:pk>/files/<path:path>", api.OneFile.as_view(), name="api_upload_file"),
    path("uploads/<uuid:pk>/check", api.CheckUpload.as_view(), name="api_upload_check"),
    path("uploads/<uuid:pk>/publish", api.PublishUpload.as_view(), name="api_upload_publish"),
]
