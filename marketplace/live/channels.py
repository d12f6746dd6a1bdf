"""Who may listen to which channel.

A channel is `prefix:key`, such as `job:6f1c…`. Each app registers a prefix, when Django is ready,
with a function that decides access; a channel without one does not exist.
"""

from __future__ import annotations

from collections.abc import Callable

from django.contrib.auth.models import AnonymousUser

from marketplace.accounts.models import User

Decide = Callable[[User | AnonymousUser, str], bool]

_deciders: dict[str, Decide] = {}


def register(prefix: str, decide: Decide) -> None:
    """Let `decide(user, key)` rule over the channels `prefix:key`."""
    _deciders[prefix] = decide


def may_listen(user: User | AnonymousUser, channel: str) -> bool:
    """Tell whether the user may know what happens on the channel."""
    prefix, _, key = channel.partition(":")
    decide = _deciders.get(prefix)
    return bool(key) and decide is not None and decide(user, key)
