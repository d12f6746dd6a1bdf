"""The documents of docs/ are pages of the site, and their links lead somewhere."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from django.contrib.staticfiles import finders

from marketplace.documents import DOCUMENTS, FOLDER, render_document

pytestmark = pytest.mark.django_db


def test_it_works(client):
    html = client.get("/docs/operations").content.decode()

    assert "<h1 " in html
    assert 'aria-current="page">Running a site</a>' in html


def test_headings_can_be_linked_to():
    assert '<h2 id="nginx-in-front">' in render_document("settings")


@pytest.mark.parametrize("slug", DOCUMENTS)
def test_every_link_of_a_document_leads_somewhere(client, slug):
    for href in re.findall(r'href="([^"]+)"', render_document(slug)):
        if href.startswith(("https://", "mailto:")):
            continue
        page, _, part = href.partition("#")
        answer = client.get(page or f"/docs/{slug}")
        assert answer.status_code == 200, href
        assert not part or f'id="{part}"' in answer.content.decode(), href


@pytest.mark.parametrize("slug", DOCUMENTS)
def test_a_document_keeps_one_outline(slug):
    levels = [int(level) for level in re.findall(r"<h(\d) id=", render_document(slug))]

    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_examples_for_visitors_name_this_site(settings):
    settings.PUBLIC_URL = "https://shop.example.org"

    assert "SITE:-https://shop.example.org}" in render_document("api")
    assert "HF_ENDPOINT=https://shop.example.org" in render_document("hub")
    assert "shop.example.org" not in render_document("settings")


def test_markup_in_a_document_is_shown_not_run(tmp_path, monkeypatch):
    (tmp_path / "hub.md").write_text("# Hub\n\n<script>alert(1)</script> [x](unknown.md)\n")
    monkeypatch.setattr("marketplace.documents.FOLDER", tmp_path)

    html = render_document("hub")

    assert "<script" not in html
    assert 'href="unknown.md"' in html


def test_pictures_are_found_among_the_static_files(tmp_path, monkeypatch):
    (tmp_path / "hub.md").write_text("# Hub\n\n![The front page](images/front.png)\n")
    monkeypatch.setattr("marketplace.documents.FOLDER", tmp_path)

    html = render_document("hub")

    assert '<img src="/static/docs/front.png" alt="The front page"' in html
    assert finders.find("docs/front.png")


def test_documents_that_are_not_there_are_not_offered():
    assert {path.stem for path in FOLDER.glob("*.md")} >= set(DOCUMENTS)
