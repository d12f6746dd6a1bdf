"""The icon tag: one name, one line of SVG that uses the sprite in ``templates/_icons.html``.

An icon beside a word is decoration and hidden from screen readers; an icon alone needs a label on
its button, which is the template's affair.
"""

from __future__ import annotations

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

register = template.Library()

ICONS = frozenset(
    [
        "archive",
        "arrow-left",
        "arrow-right",
        "chat",
        "check",
        "clock",
        "code",
        "copy",
        "down",
        "edit",
        "eye",
        "file",
        "flag",
        "folder",
        "heart",
        "info",
        "key",
        "link",
        "lock",
        "merge",
        "minus",
        "more",
        "moon",
        "play",
        "plus",
        "retry",
        "search",
        "send",
        "stop",
        "sun",
        "tag",
        "theme",
        "tray",
        "trash",
        "up",
        "user",
        "users",
        "warn",
        "x",
    ]
)


@register.simple_tag
def icon(name: str) -> SafeString:
    """``{% icon "search" %}``: draw an icon of the sprite; see ``ICONS`` for the names."""
    if name not in ICONS:
        message = f"There is no icon called {name!r}. Known: {', '.join(sorted(ICONS))}."
        raise template.TemplateSyntaxError(message)
    return format_html(
        '<svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><use href="#i-{}"/></svg>', name
    )
