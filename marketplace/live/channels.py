"""Who may listen to which channel.

A channel is `prefix:key`, such as `job:6f1c…`. Each app registers a prefix, when Django is ready,
with a function that decides access; a channel without one does not exist.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# The first argument is the user or an AnonymousUser; their model belongs to another app.
Decide = Callable[[Any, str], bool]

_deciders: dict[str, Decide] = {}


def register(prefix: str, decide: Decide) -> None:
    """Let `decide(user, key)` rule over the channels `prefix:key`."""
    _deciders[prefix] = decide


def may_listen(user: Any, channel: str) -> bool:
    """Tell whether the user may know what happens on the channel."""
    prefix, _, key = channel.partition(":")
    decide = _deciders.get(prefix)
    return bool(key) and decide is not None and decide(user, key)
