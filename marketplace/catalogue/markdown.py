"""Cards from Markdown to safe HTML.

Markdown comes from strangers: it is rendered by markdown-it and then cleaned by nh3 against a short
list of tags, so that nothing in it can run, load or restyle the page. Pictures become links, since
pages load nothing from elsewhere; headings start at the second level, below the page's own.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

import nh3
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

MAX_CHARACTERS = 512 * 1024
_FIRST_HEADING, _DEEPEST_HEADING = 2, 6
_TAGS = {
    *("p", "br", "hr", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre", "code", "details"),
    *("ul", "ol", "li", "table", "thead", "tbody", "tr", "th", "td", "summary", "div", "span"),
    *("a", "em", "strong", "del", "s", "sub", "sup", "kbd", "b", "i", "dl", "dt", "dd"),
}
_ATTRIBUTES = {"a": {"href", "title"}, "ol": {"start"}, "code": {"class"}, "th": {"align"}}
_SCHEMES = {"http", "https", "mailto"}


def render_markdown(text: str) -> SafeString:
    """Return the HTML of a card; whatever could do harm is gone."""
    parser = _parser()
    tokens = parser.parse(text[:MAX_CHARACTERS])
    _settle_headings(tokens)
    html = parser.renderer.render(tokens, parser.options, {})
    clean = nh3.clean(
        html,
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        url_schemes=_SCHEMES,
        link_rel="nofollow ugc noopener noreferrer",
        clean_content_tags={"script", "style", "iframe", "svg", "math", "template"},
    )
    return mark_safe(clean)  # noqa: S308 - cleaned by nh3 one line above


def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    parser.add_render_rule("image", _render_image)
    return parser


def _render_image(
    renderer: RendererHTML,
    tokens: Sequence[Token],
    index: int,
    options: Any,
    env: MutableMapping[str, Any],
) -> str:
    token = tokens[index]
    words = renderer.renderInlineAsText(token.children or [], options, env) or "picture"
    href = nh3.clean_text(str(token.attrGet("src") or ""))
    return f'<a href="{href}">{nh3.clean_text(words)}</a>'


def _settle_headings(tokens: Sequence[Token]) -> None:
    """Begin at the second level and skip none, so that the page keeps one outline."""
    above = _FIRST_HEADING - 1
    shift = 0
    for token in tokens:
        if token.type == "heading_open":
            level = int(token.tag[1:])
            shift = shift or _FIRST_HEADING - level
            above = min(max(level + shift, _FIRST_HEADING), above + 1, _DEEPEST_HEADING)
        if token.type in {"heading_open", "heading_close"}:
            token.tag = f"h{above}"
