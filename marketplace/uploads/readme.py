"""The README.md of a revision: what the owner says of the adapter, as hub clients read it.

A README that came with the files is kept as it is while the card says the same; otherwise its front
matter keeps the fields that are not ours.
"""

from __future__ import annotations

import re
from typing import Any

from marketplace.accounts.names import MAX_NAME_LENGTH
from marketplace.catalogue.front_matter import (
    FrontMatterError,
    read_readme,
    split_front_matter,
    write_front_matter,
)
from marketplace.uploads.models import Upload

_SAID = ("summary", "licence", "task", "language", "tags")
_HEADING = re.compile(r"^#[ \t]+(.+)$", re.MULTILINE)
_NO_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_RUNS = re.compile(r"-{2,}|\.{2,}")
_PLAIN = re.compile(r"[A-Za-z0-9][^<>|`\[\]*_]*\Z")
MAX_SUMMARY = 200
_PIPELINES = {"CAUSAL_LM": "text-generation", "SEQ_2_SEQ_LM": "text2text-generation"}


def write_readme(upload: Upload, original: str) -> str:
    """Return the README for the shelf, from the draft's card and the README it came with."""
    try:
        fields, body = split_front_matter(original)
        said = read_readme(original)
    except FrontMatterError:
        fields, body, said = {}, "", None
    same = said is not None and all(
        (getattr(said, name) or []) == (getattr(upload, name) or []) for name in _SAID
    )
    if original and same and body.strip() == upload.card.strip():
        return original
    return write_front_matter({**fields, **_front_matter(upload)}) + _body(upload)


def suggest_name(card: str) -> str:
    """Make a name of the first heading, or return an empty text."""
    heading = _HEADING.search(card)
    words = _NO_NAME.sub("-", heading[1]) if heading else ""
    return _RUNS.sub("-", words)[:MAX_NAME_LENGTH].strip("-._")


def suggest_summary(card: str) -> str:
    """Return the first paragraph where it is one short line of plain text, or an empty text."""
    for line in card.splitlines():
        text = line.strip()
        if text and not text.startswith("#"):
            return text if len(text) <= MAX_SUMMARY and _PLAIN.match(text) else ""
    return ""


def _front_matter(upload: Upload) -> dict[str, Any]:
    summary = upload.adapter_summary
    licence = upload.licence
    return {
        "base_model": upload.base_model.name if upload.base_model else "",
        "library_name": "peft",
        # Hub cards write a single licence in small letters.
        "license": licence.lower() if licence.count(" ") == 0 else licence,
        "language": upload.language,
        "pipeline_tag": _PIPELINES.get((summary.task_type if summary else None) or "", ""),
        "summary": upload.summary,
        "task": upload.task,
        "tags": ["lora", *(tag for tag in upload.tags if tag != "lora")],
    }


def _body(upload: Upload) -> str:
    return f"{upload.card.strip() or f'# {upload.name}'}\n"
