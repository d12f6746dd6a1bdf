from __future__ import annotations

import pytest

from marketplace.accounts.models import ApiToken, User
from tests.factories import make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def admin(client):
    client.force_login(make_user("root-user", is_staff=True, is_superuser=True))
    return client


def test_it_works(admin, ann):
    assert admin.get("/admin/accounts/user/").status_code == 200
    page = admin.get(f"/admin/accounts/user/{ann.pk}/change/")
    assert b"bio" in page.content


def test_an_administrator_adds_users_under_the_name_rules(admin):
    add = "/admin/accounts/user/add/"
    new = {
        "usable_password": "true",
        "password1": "a long pass phrase",
        "password2": "a long pass phrase",
    }
    assert admin.post(add, {"username": "api", **new}).status_code == 200
    assert admin.post(add, {"username": "carol", **new}).status_code == 302
    assert User.objects.filter(username__in=["api", "carol"]).count() == 1


def test_tokens_are_listed_and_revoked_but_never_made_or_changed(admin, ann, issue):
    secret = issue(ann).rpartition("_")[2]
    token = ApiToken.objects.get()
    assert secret not in admin.get("/admin/accounts/apitoken/").content.decode()
    assert admin.get("/admin/accounts/apitoken/add/").status_code == 403
    page = f"/admin/accounts/apitoken/{token.pk}"
    assert token.secret_hash not in admin.get(f"{page}/change/").content.decode()
    assert admin.post(f"{page}/change/", {"scope": "write"}).status_code == 403
    assert admin.post(f"{page}/delete/", {"post": "yes"}).status_code == 302
    assert not ApiToken.objects.exists()


def test_users_without_the_right_see_nothing_of_it(client, ann):
    client.force_login(ann)
    assert client.get("/admin/accounts/user/").status_code == 302
