"""People and their tokens."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from marketplace.accounts.models import ApiToken, User
from tests.factories import PASSWORD, make_user


@pytest.fixture(autouse=True)
def _quick_hashes(settings) -> None:
    """Real password hashes are slow on purpose; here nobody attacks them."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


def make_person(name: str, **fields: str) -> User:
    user = make_user(name, **fields)
    user.set_password(PASSWORD)
    user.save()
    return user


@pytest.fixture
def ann(db, _quick_hashes) -> User:
    return make_person("Ann", email="ann@example.org")


@pytest.fixture
def bob(db, _quick_hashes) -> User:
    return make_person("bob")


@pytest.fixture
def issue():
    """Make a token and return its text."""

    def issue(user: User, *, scope: str = "write", name: str = "laptop", days: float = 1) -> str:
        expires_at = timezone.now() + timedelta(days=days)
        return ApiToken.issue(user=user, name=name, scope=scope, expires_at=expires_at)[1]

    return issue
