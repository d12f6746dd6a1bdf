"""Addresses of the accounts app."""

from __future__ import annotations

from django.urls import URLPattern, path

from marketplace.accounts import api, views

urlpatterns: list[URLPattern] = [
    path("sign-up", views.sign_up, name="sign_up"),
    path("sign-up/name", views.check_name, name="check_name"),
    path("sign-in", views.sign_in, name="sign_in"),
    path("sign-out", views.sign_out, name="sign_out"),
    path("settings", views.settings, name="settings"),
    path("password", views.change_password, name="change_password"),
    path("reset", views.reset_password, name="reset_password"),
    path("reset/sent", views.reset_sent, name="reset_sent"),
    path("reset/<uidb64>/<token>", views.reset_confirm, name="reset_confirm"),
    path("tokens", views.tokens, name="tokens"),
    path("tokens/<int:pk>/revoke", views.revoke_token, name="revoke_token"),
]
api_urlpatterns: list[URLPattern] = [
    path("me", api.Me.as_view(), name="api_me"),
    path("tokens", api.Tokens.as_view(), name="api_tokens"),
    path("tokens/<int:pk>", api.OneToken.as_view(), name="api_token"),
]
