"""The documents of docs/ as pages of the site: one text for the reader of either.

Only the project's own files are rendered here, so they are trusted; what strangers write goes
through `catalogue.markdown`. A document that is not in the folder is not offered.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from django.conf import settings
from django.templatetags.static import static
from django.urls import reverse
from django.utils.safestring import SafeString, mark_safe
from django.utils.text import slugify
from markdown_it import MarkdownIt
from markdown_it.token import Token

FOLDER = settings.BASE_DIR / "docs"
EXAMPLE_ADDRESSES = re.compile(r"http://127\.0\.0\.1:8000|https://your\.marketplace")
_LINK = re.compile(r"(?P<slug>[a-z]+)\.md(?P<part>#[\w-]+)?")


@dataclass(frozen=True)
class Document:
    """One file of docs/, and what it is called in the list of pages."""

    slug: str
    title: str
    for_visitors: bool = True  # then its example address is replaced by the site's own

    @property
    def exists(self) -> bool:
        """Whether this installation has the file."""
        return (FOLDER / f"{self.slug}.md").is_file()


_ALL = (
    Document("api", "API"),
    Document("hub", "Hub clients"),
    Document("composer", "The composer library"),
    Document("lorahub", "Coming from lorahub"),
    Document("benchmarks", "Benchmarks"),
    Document("operations", "Running a site", for_visitors=False),
    Document("settings", "Settings", for_visitors=False),
)
DOCUMENTS = {document.slug: document for document in _ALL if document.exists}


def render_document(slug: str) -> SafeString:
    """Return a document as HTML: its headings can be linked to, its links stay on the site."""
    text = (FOLDER / f"{slug}.md").read_text(encoding="utf-8")
    if DOCUMENTS[slug].for_visitors:
        text = EXAMPLE_ADDRESSES.sub(lambda _: settings.PUBLIC_URL, text)
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(text)
    _name_headings(tokens)
    for token in tokens:
        for child in token.children or ():
            if child.type == "link_open":
                child.attrSet("href", _page_of(str(child.attrGet("href"))))
            elif child.type == "image":
                name = str(child.attrGet("src")).removeprefix("images/")
                child.attrSet("src", static(f"docs/{name}"))  # where settings put docs/images
    html: str = parser.renderer.render(tokens, parser.options, {})
    return mark_safe(html)  # noqa: S308 - the project's own files


def _name_headings(tokens: list[Token]) -> None:
    for opening, content in pairwise(tokens):
        if opening.type == "heading_open":
            opening.attrSet("id", slugify(content.content))


def _page_of(href: str) -> str:
    """Turn `settings.md#limits` into the page that shows it."""
    match = _LINK.fullmatch(href)
    if match is None or match["slug"] not in DOCUMENTS:
        return href
    return reverse("docs_page", args=[match["slug"]]) + (match["part"] or "")
