"""The YAML block at the top of a README.md, as hub cards have it: read strictly, written plainly.

Only a small safe subset is read: no aliases (they can blow up), at most eight levels, 16 KiB. What
the fields mean for an adapter is in `read_readme`; rendering the rest is left to `markdown`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from marketplace.catalogue.languages import find_language
from marketplace.catalogue.licences import LicenceError, normalise_licence
from marketplace.catalogue.services.cards import MAX_TAGS, CardFields

MAX_BYTES = 16 * 1024
MAX_DEPTH = 8
MAX_FIELD = 300
_BLOCK = re.compile(r"\A\ufeff?---[ \t]*\n(.*?)(?:^---[ \t]*(?:\n|\Z))", re.DOTALL | re.MULTILINE)
# Tags that say how the files came to be and what they are, which pages show from the files.
_TECHNICAL = re.compile(r"base_model:|license:|region:|arxiv:|dataset:|lora\Z|peft\Z|safetensors\Z")
_TAG_SIGNS = re.compile(r"[^a-z0-9._+-]+")


class FrontMatterError(ValueError):
    """A front matter that cannot be read, with a sentence that says what to change."""


class _StrictLoader(yaml.SafeLoader):
    """A safe loader that refuses aliases, depth and keys given twice."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            message = "Aliases (&name, *name) are not allowed in the front matter."
            raise FrontMatterError(message)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            message = f"The front matter is nested more than {MAX_DEPTH} levels deep."
            raise FrontMatterError(message)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def split_front_matter(text: str) -> tuple[dict[str, Any], str]:
    """Return the fields of the front matter and the Markdown below it.

    Raises:
        FrontMatterError: where there is a block that cannot be read.
    """
    text = text.replace("\r\n", "\n")
    match = _BLOCK.match(text)
    if match is None:
        return {}, text
    block = match[1]
    if len(block.encode()) > MAX_BYTES:
        message = f"The front matter has more than {MAX_BYTES // 1024} KiB. Shorten it."
        raise FrontMatterError(message)
    return _load(block), text[match.end() :].lstrip("\n")


def read_readme(text: str) -> CardFields:
    """Read what a README.md says of its adapter; fields that do not fit ours are left out.

    Raises:
        FrontMatterError: where the front matter cannot be read at all.
    """
    fields, body = split_front_matter(text)
    return CardFields(
        card=body,
        summary=_read_line(fields.get("summary")) or None,
        licence=_read_licence(fields),
        language=_read_language(fields.get("language")),
        task=_read_line(fields.get("task"))[:60] or None,
        training_data=", ".join(_read_list(fields.get("datasets")))[:MAX_FIELD] or None,
        tags=_read_tags(fields.get("tags")),
    )


def write_front_matter(fields: Mapping[str, Any]) -> str:
    """Return the block for the top of a README.md; empty fields are left out."""
    kept = {key: value for key, value in fields.items() if value not in ("", None, [], ())}
    if not kept:
        return ""
    body = yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, default_flow_style=False)
    return f"---\n{body}---\n\n"


def _load(block: str) -> dict[str, Any]:
    try:
        fields = yaml.load(block, Loader=_StrictLoader)  # noqa: S506 - a safe loader, made stricter
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 2})" if mark else ""
        message = f"The front matter is no valid YAML{where}. Mend it or take it out."
        raise FrontMatterError(message) from None
    except (ValueError, RecursionError, OverflowError) as error:
        if isinstance(error, FrontMatterError):
            raise
        message = "The front matter holds a value that cannot be read, such as an impossible date."
        raise FrontMatterError(message) from None
    if fields is None:
        return {}
    if not isinstance(fields, dict):
        message = "The front matter has to be a list of names and values, such as “license: mit”."
        raise FrontMatterError(message)
    return {str(key): value for key, value in fields.items()}


def _read_line(value: Any) -> str:
    return " ".join(value.split())[:MAX_FIELD] if isinstance(value, str) else ""


def _read_list(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [line for line in map(_read_line, values) if line]


def _read_licence(fields: Mapping[str, Any]) -> str | None:
    text = _read_line(fields.get("license") or fields.get("licence"))
    try:
        return normalise_licence(text) or None
    except LicenceError:
        return "LicenseRef-Other"


def _read_language(value: Any) -> str | None:
    codes = [code for code in map(find_language, _read_list(value)) if code]
    return ("multilingual" if len(codes) > 1 else codes[0]) if codes else None


def _read_tags(value: Any) -> list[str] | None:
    words = (tag.lower() for tag in _read_list(value))
    names = (_TAG_SIGNS.sub("-", tag).strip("-._+") for tag in words if not _TECHNICAL.match(tag))
    return sorted({name[:40] for name in names if name})[:MAX_TAGS] or None
