"""Addresses of the live app."""

from __future__ import annotations

from django.urls import URLPattern, path

from marketplace.live import views

urlpatterns: list[URLPattern] = [
    path("live/<str:channel>", views.stream, name="stream"),
    path("live/<str:channel>/events", views.poll, name="poll"),
]
api_urlpatterns: list[URLPattern] = []
