from __future__ import annotations

import pytest
from django.contrib.auth.models import AnonymousUser
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request
from rest_framework.test import APIRequestFactory
from rest_framework.views import APIView

from marketplace.accounts.models import ApiToken, User
from marketplace.accounts.permissions import ReadOrWriteScope, SignedIn

WRITING = ("POST", "PUT", "PATCH", "DELETE")


def allowed(permission, method: str, *, user=None, scope: str | None = None) -> bool:
    request = Request(APIRequestFactory().generic(method, "/"))
    request.user = user or AnonymousUser()
    request.auth = ApiToken(scope=scope) if scope else None
    return bool(permission().has_permission(request, APIView()))


def test_it_works():
    assert all(allowed(ReadOrWriteScope, method) for method in SAFE_METHODS)
    assert all(allowed(ReadOrWriteScope, method, user=User()) for method in WRITING)


@pytest.mark.parametrize("method", WRITING)
def test_writing_takes_a_user_and_a_token_that_may(method):
    assert not allowed(ReadOrWriteScope, method)
    assert not allowed(ReadOrWriteScope, method, user=User(), scope="read")
    assert allowed(ReadOrWriteScope, method, user=User(), scope="write")


def test_what_belongs_to_one_person_is_not_read_by_strangers():
    assert not allowed(SignedIn, "GET")
    assert allowed(SignedIn, "GET", user=User(), scope="read")
    assert not allowed(SignedIn, "POST", user=User(), scope="read")
