"""All addresses of the site: fixed words first, then `owner` and `owner/name` for the rest.

Each app's `urls` has `urlpatterns` for pages and `api_urlpatterns` for JSON under /api/v1/. The
names that the fixed words use up are reserved in `marketplace.accounts.names`.
"""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView

from marketplace import pages
from marketplace.accounts import urls as accounts_urls
from marketplace.catalogue import urls as catalogue_urls
from marketplace.compositions import urls as compositions_urls
from marketplace.hub import urls as hub_urls
from marketplace.live import urls as live_urls
from marketplace.uploads import urls as uploads_urls

handler400 = "marketplace.pages.bad_request"
handler403 = "marketplace.pages.forbidden"
handler404 = "marketplace.pages.not_found"
handler500 = "marketplace.pages.server_error"

api_v1 = [
    *accounts_urls.api_urlpatterns,
    *catalogue_urls.api_urlpatterns,
    *uploads_urls.api_urlpatterns,
    *compositions_urls.api_urlpatterns,
    path("schema", SpectacularAPIView.as_view(), name="api_schema"),
    path("docs", pages.api_reference, name="api_docs"),
]

urlpatterns = [
    path("", pages.front, name="front"),
    path("healthz", pages.healthz, name="healthz"),
    path("readyz", pages.readyz, name="readyz"),
    path("docs", pages.docs, name="docs"),
    path("docs/<slug:page>", pages.docs, name="docs_page"),
    path("theme", pages.set_theme, name="set_theme"),
    path("styleguide", pages.styleguide, name="styleguide"),
    path("admin/", admin.site.urls),
    path("api/v1/", include(api_v1)),
    path("accounts/", include((accounts_urls.urlpatterns, "accounts"))),
    path("", include((uploads_urls.urlpatterns, "uploads"))),
    path("", include((compositions_urls.urlpatterns, "compositions"))),
    path("", include((live_urls.urlpatterns, "live"))),
    path("", include((hub_urls.urlpatterns, "hub"))),  # before the catalogue's api/* 404s
    path("", include((catalogue_urls.urlpatterns, "catalogue"))),  # owner/name: must be last
]
