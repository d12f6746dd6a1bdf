"""People and tokens that the tests of the wire share."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from marketplace.accounts.models import ApiToken, User
from tests.factories import make_user


def bearer(user: User, scope: str = ApiToken.Scope.WRITE) -> dict[str, str]:
    """Headers of a request with a fresh token of the user, for the test client."""
    _, text = ApiToken.issue(
        user=user,
        name=f"laptop {ApiToken.objects.filter(user=user).count()}",
        scope=scope,
        expires_at=timezone.now() + timedelta(days=1),
    )
    return {"Authorization": f"Bearer {text}"}


@pytest.fixture
def alice(db: None) -> User:
    """The owner."""
    return make_user("alice")


@pytest.fixture
def bob(db: None) -> User:
    """Somebody else."""
    return make_user("bob")


@pytest.fixture
def as_alice(alice: User) -> dict[str, str]:
    """The owner's token, which may write."""
    return bearer(alice)


@pytest.fixture
def as_bob(bob: User) -> dict[str, str]:
    """Somebody else's token, which may write."""
    return bearer(bob)
