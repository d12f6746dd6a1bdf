"""On which conditions the author of a gated adapter lets people in, read from its README.

The hub's cards have them in the front matter, as `extra_gated_prompt`; they are Markdown.
"""

from __future__ import annotations

from django.utils.safestring import SafeString

from marketplace.blobs.services import read_blob
from marketplace.catalogue.front_matter import FrontMatterError, split_front_matter
from marketplace.catalogue.markdown import render_markdown
from marketplace.catalogue.models import Adapter

README = "README.md"
FIELD = "extra_gated_prompt"


def read_conditions(adapter: Adapter) -> SafeString | str:
    """Return them rendered, or an empty text where the author gives none."""
    latest = adapter.latest
    file = latest.files.select_related("blob").filter(path=README).first() if latest else None
    if file is None:
        return ""
    try:
        fields, _ = split_front_matter(read_blob(file.blob).decode("utf-8", "replace"))
    except FrontMatterError:
        return ""
    text = fields.get(FIELD)
    return render_markdown(text) if isinstance(text, str) and text.strip() else ""
