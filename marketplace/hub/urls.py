"""Addresses of the hub's protocol; they stand at the root, before the pages of the catalogue.

`/api/...` is the clients' API, `/<owner>/<name>/resolve/...` the files, `/_cas/...` and `.git` the
two upload protocols. No address ends in a slash: a redirected POST would lose its body.
"""

from __future__ import annotations

from django.urls import URLPattern

reading: list[URLPattern] = []
publishing: list[URLPattern] = []

urlpatterns = [*reading, *publishing]
