"""Who is let in to a gated adapter: asking, granting, refusing, taking back.

A row of `AccessRequest` is the whole truth; only a granted one opens the files. Asking twice is
once, and whom the owner refused is not asked about again by asking again.
"""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from marketplace.accounts.models import User
from marketplace.catalogue.models import AccessRequest, Adapter
from marketplace.catalogue.services.errors import CatalogueError
from marketplace.catalogue.services.shelving import lock_own

State = AccessRequest.State
MAX_MESSAGE = 300


class NotGated(CatalogueError):
    """The adapter's files are everybody's, so there is nothing to ask for or to decide."""

    def __init__(self, adapter: Adapter) -> None:
        super().__init__({"": [f"{adapter.full_name} is not gated: its files are open."]})


class NoSuchRequest(CatalogueError):
    """There is no request that could be changed like this."""

    def __init__(self, text: str) -> None:
        super().__init__({"user": [text]})


def ask_for_access(adapter: Adapter, user: User, *, message: str = "") -> AccessRequest:
    """Note the wish of a user who may see the adapter; an automatic gate grants it at once.

    Raises:
        NotGated: there is nothing to ask for.
        CatalogueError: the user is the owner, or the message is too long.
    """
    message = " ".join(message.split())
    if adapter.owner_id == user.pk:
        raise CatalogueError({"": ["It is yours: its files are open to you."]})
    if len(message) > MAX_MESSAGE:
        raise CatalogueError({"message": [f"At most {MAX_MESSAGE} characters."]})
    with transaction.atomic():
        locked = Adapter.objects.select_for_update(no_key=True, of=("self",)).get(pk=adapter.pk)
        if not locked.is_gated:
            raise NotGated(adapter)
        is_granted = locked.gated == Adapter.Gate.AUTO
        found, _ = AccessRequest.objects.get_or_create(
            adapter=locked,
            user=user,
            defaults={
                "message": message,
                "state": State.GRANTED if is_granted else State.PENDING,
                "decided_at": timezone.now() if is_granted else None,
            },
        )
    return found


def withdraw_request(adapter: Adapter, user: User) -> bool:
    """Forget the user's own request, waiting or granted; a refused one stays. Say if it was there.

    A refusal that one could delete oneself would be none.
    """
    mine = AccessRequest.objects.filter(adapter=adapter, user=user).exclude(state=State.REFUSED)
    return bool(mine.delete()[0])


def decide_access(adapter: Adapter, user: User, state: str, *, by: User) -> AccessRequest:
    """Grant or refuse a request, or put it back to those that wait; revoking is refusing.

    Raises:
        CatalogueError: `by` is not the owner.
        NotGated: everybody is let in anyway.
        NoSuchRequest: the user did not ask, or the request is in this state already.
    """
    with transaction.atomic():
        locked = _lock_gated(adapter, by)
        found = AccessRequest.objects.filter(adapter=locked, user=user).first()
        if found is None:
            raise NoSuchRequest(f"{user.username} has not asked for access.")
        if found.state == state:
            text = f"The request of {user.username} is {found.get_state_display()} already."
            raise NoSuchRequest(text)
        _set_state(found, state)
    return found


def grant_access(adapter: Adapter, user: User, *, by: User) -> AccessRequest:
    """Let a user in, whether or not they asked.

    Raises:
        CatalogueError: `by` is not the owner, or lets themselves in.
        NotGated: everybody is let in anyway.
    """
    with transaction.atomic():
        locked = _lock_gated(adapter, by)
        if user.pk == locked.owner_id:
            raise CatalogueError({"user": ["It is yours: its files are open to you."]})
        found, _ = AccessRequest.objects.get_or_create(adapter=locked, user=user)
        _set_state(found, State.GRANTED)
    return found


def _lock_gated(adapter: Adapter, by: User) -> Adapter:
    locked = lock_own(adapter, by)
    if not locked.is_gated:
        raise NotGated(locked)
    return locked


def _set_state(request: AccessRequest, state: str) -> None:
    request.state = state
    request.decided_at = None if state == State.PENDING else timezone.now()
    request.save(update_fields=["state", "decided_at"])
