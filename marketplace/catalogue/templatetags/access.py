"""How many people wait for the visitor's decision, for the menu of every page."""

from __future__ import annotations

from typing import Any

from django import template

from marketplace.catalogue.access_requests import count_waiting

register = template.Library()


@register.simple_tag
def waiting_requests(user: Any) -> int:
    """Count the requests for the user's gated adapters that nobody decided."""
    return count_waiting(user)
