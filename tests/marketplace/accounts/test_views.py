from __future__ import annotations

import re

import pytest
from django.core import mail
from django.test import Client

from marketplace.accounts.models import ApiToken, User
from marketplace.accounts.services import MAX_TOKENS, MailAway
from marketplace.accounts.tasks import send_reset_mail
from tests.factories import PASSWORD, make_user

pytestmark = pytest.mark.django_db
SIGN_IN, SIGN_UP, RESET = "/accounts/sign-in", "/accounts/sign-up", "/accounts/reset"
NEW_PASSWORD = "quite another phrase"


def sign_up_data(name: str = "carol", **fields: str) -> dict[str, str]:
    return {
        "username": name,
        "email": "",
        "password1": NEW_PASSWORD,
        "password2": NEW_PASSWORD,
    } | fields


def signed_in_as(client: Client) -> str | None:
    pk = client.session.get("_auth_user_id")
    return User.objects.get(pk=pk).username if pk else None


def test_it_works(client):
    made = client.post(SIGN_UP, sign_up_data())
    assert made.status_code == 302
    assert signed_in_as(client) == "carol"
    client.post("/accounts/sign-out")
    assert signed_in_as(client) is None
    answer = client.post(SIGN_IN, {"username": "carol", "password": NEW_PASSWORD})
    assert answer.status_code == 302
    assert signed_in_as(client) == "carol"


@pytest.mark.parametrize("page", [SIGN_IN, SIGN_UP, RESET, "/accounts/reset/sent"])
def test_pages_for_visitors_are_shown(client, page):
    assert client.get(page).status_code == 200


# ---- sign up -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"username": "api"}, "reserved"),
        ({"username": "a--b"}, "must not contain"),
        ({"username": "\u0410nn"}, "letters a to z"),
        ({"username": "ANN"}, "taken"),
        ({"username": "a\x00"}, "Null"),
        ({"password2": "something else"}, "match"),
        ({"password1": "short", "password2": "short"}, "too short"),
        ({"password1": "12345678901", "password2": "12345678901"}, "numeric"),
        ({"password1": "password123", "password2": "password123"}, "common"),
        ({"email": "nowhere"}, "valid email"),
    ],
)
def test_sign_up_tells_what_is_wrong(client, ann, fields, reason):
    answer = client.post(SIGN_UP, sign_up_data(**fields))
    assert answer.status_code == 422
    assert reason in answer.content.decode()
    assert User.objects.count() == 1


def test_sign_up_cannot_make_staff(client):
    client.post(SIGN_UP, sign_up_data(is_staff="on", is_superuser="on"))
    user = User.objects.get()
    assert not user.is_staff
    assert not user.is_superuser


def test_sign_up_leads_back_to_where_one_was(client):
    page = client.get(f"{SIGN_UP}?next=/compose")
    assert 'value="/compose"' in page.content.decode()
    assert client.post(SIGN_UP, sign_up_data(next="/compose"))["Location"] == "/compose"


@pytest.mark.parametrize(
    "target", ["//evil.example", "/\\evil.example", "javascript:alert(1)", "https://evil.example/"]
)
def test_nobody_is_led_to_another_site(client, ann, target):
    assert client.post(SIGN_UP, sign_up_data(next=target))["Location"] == "/"
    client.post("/accounts/sign-out")
    answer = client.post(SIGN_IN, {"username": "Ann", "password": PASSWORD, "next": target})
    assert answer["Location"] == "/"


def test_accounts_from_one_address_are_limited(client, settings):
    settings.SIGN_UPS_PER_HOUR = 2
    for number in range(2):
        assert client.post(SIGN_UP, sign_up_data(f"user{number}")).status_code == 302
        client.logout()
    refused = client.post(SIGN_UP, sign_up_data("user3"), headers={"X-Forwarded-For": "6.6.6.6"})
    assert refused.status_code == 429
    assert refused["Retry-After"]
    assert User.objects.count() == 2


def test_whoever_is_signed_in_need_not_sign_up(client, ann):
    client.force_login(ann)
    assert client.get(SIGN_UP).status_code == 302


@pytest.mark.parametrize(
    ("name", "text"),
    [("carol", "carol is free"), ("ANN", "taken"), ("api", "reserved"), ("", "")],
)
def test_a_name_is_checked_while_it_is_typed(client, ann, name, text):
    answer = client.get("/accounts/sign-up/name", {"username": name})
    assert text in answer.content.decode()
    assert "<html" not in answer.content.decode()


def test_a_checked_name_is_escaped(client):
    answer = client.get("/accounts/sign-up/name", {"username": "<script>alert(1)</script>"})
    assert "<script" not in answer.content.decode()


def test_a_name_taken_in_the_same_moment_is_told(client, monkeypatch):
    from marketplace.accounts import forms

    make_user("carol")
    monkeypatch.setattr(forms.SignUpForm, "clean_username", lambda self: "carol")
    monkeypatch.setattr(User, "validate_constraints", lambda *_, **__: None)
    monkeypatch.setattr(User, "validate_unique", lambda *_, **__: None)
    answer = client.post(SIGN_UP, sign_up_data())
    assert answer.status_code == 422
    assert "taken" in answer.content.decode()


# ---- sign in and out -----------------------------------------------------------------------------


def test_the_case_of_the_name_does_not_matter(client, ann):
    client.post(SIGN_IN, {"username": "aNN", "password": PASSWORD})
    assert signed_in_as(client) == "Ann"


def test_a_wrong_password_and_a_wrong_name_are_answered_alike(client, ann):
    wrong = [
        client.post(SIGN_IN, {"username": name, "password": "wrong"}) for name in ("Ann", "nobody")
    ]
    texts = [
        re.sub(r'csrf[^>]*value="[^"]*"|"X-CSRFToken": "[^"]*"', "", a.content.decode()).replace(
            "nobody", "Ann"
        )
        for a in wrong
    ]
    assert [a.status_code for a in wrong] == [422, 422]
    assert texts[0] == texts[1]


def test_an_inactive_user_is_answered_like_a_wrong_password(client, ann):
    ann.is_active = False
    ann.save()
    assert client.post(SIGN_IN, {"username": "Ann", "password": PASSWORD}).status_code == 422


def test_the_eleventh_try_is_refused_even_with_the_right_password(client, ann):
    for number in range(10):
        client.post(
            SIGN_IN,
            {"username": "ann" if number % 2 else "ANN", "password": "wrong"},
            headers={"X-Forwarded-For": f"10.0.0.{number}"},
        )
    answer = client.post(SIGN_IN, {"username": "Ann", "password": PASSWORD})
    assert answer.status_code == 429
    assert answer["Retry-After"] == "300"
    assert "five minutes" in answer.content.decode()
    assert signed_in_as(client) is None


def test_others_can_sign_in_while_one_name_is_locked(client, ann, bob):
    for _ in range(11):
        client.post(SIGN_IN, {"username": "Ann", "password": "wrong"})
    assert client.post(SIGN_IN, {"username": "bob", "password": PASSWORD}).status_code == 302


def test_the_session_changes_at_sign_in_and_dies_at_sign_out(client, ann):
    client.get(SIGN_IN)
    client.session["tray"] = [1]
    client.session.save()
    before = client.session.session_key
    client.post(SIGN_IN, {"username": "Ann", "password": PASSWORD})
    during = client.session.session_key
    assert during != before
    client.post("/accounts/sign-out")
    old = Client()
    old.cookies["sessionid"] = during
    assert old.get("/accounts/settings").status_code == 302


def test_cookies_are_closed_to_scripts_and_other_sites(client, ann):
    answer = client.post(SIGN_IN, {"username": "Ann", "password": PASSWORD})
    cookie = answer.cookies["sessionid"]
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"


def test_signing_out_takes_a_post(client, ann):
    client.force_login(ann)
    assert client.get("/accounts/sign-out").status_code == 405
    assert signed_in_as(client) == "Ann"


@pytest.mark.parametrize(
    "page", ["sign-in", "sign-up", "reset", "sign-out", "settings", "password", "tokens"]
)
def test_every_form_needs_the_csrf_token(ann, page):
    client = Client(enforce_csrf_checks=True)
    if page not in ("sign-in", "sign-up", "reset"):
        client.force_login(ann)
    assert client.post(f"/accounts/{page}", {}).status_code == 403


@pytest.mark.parametrize("page", ["settings", "password", "tokens"])
def test_own_pages_ask_visitors_to_sign_in(client, page):
    answer = client.get(f"/accounts/{page}")
    assert answer["Location"] == f"{SIGN_IN}?next=/accounts/{page}"


# ---- passwords -----------------------------------------------------------------------------------


def change(client: Client, old: str = PASSWORD):
    data = {"old_password": old, "new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD}
    return client.post("/accounts/password", data)


def test_a_changed_password_ends_tokens_and_other_sessions(client, ann, issue):
    issue(ann)
    other = Client()
    other.force_login(ann)
    client.force_login(ann)
    answer = change(client)
    assert answer.status_code == 302
    assert not ApiToken.objects.exists()
    assert client.get("/accounts/settings").status_code == 200
    assert other.get("/accounts/settings").status_code == 302


def test_how_many_tokens_were_revoked_is_told(client, ann, issue):
    issue(ann)
    client.force_login(ann)
    change(client)
    assert "Your API tokens (1) were revoked" in client.get("/accounts/settings").content.decode()


def test_the_old_password_is_asked_for(client, ann):
    client.force_login(ann)
    assert client.get("/accounts/password").status_code == 200
    assert change(client, old="wrong").status_code == 422
    ann.refresh_from_db()
    assert ann.check_password(PASSWORD)


@pytest.fixture
def queued(monkeypatch) -> list[str]:
    """Mails that wait for a worker; the tests of tasks send them."""
    asked: list[str] = []
    monkeypatch.setattr(send_reset_mail, "delay", asked.append)
    return asked


def test_a_forgotten_password_is_chosen_anew(client, ann, issue, queued):
    issue(ann)
    assert client.post(RESET, {"email": "ann@example.org"})["Location"] == "/accounts/reset/sent"
    send_reset_mail(*queued)
    [link] = re.findall(r"http://testserver(/\S+)", str(mail.outbox[0].body))
    form = client.get(link)["Location"]
    assert client.get(form).status_code == 200
    bad = client.post(form, {"new_password1": "x", "new_password2": "y"})
    assert bad.status_code == 422
    done = client.post(form, {"new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD})
    assert done["Location"] == SIGN_IN
    ann.refresh_from_db()
    assert ann.check_password(NEW_PASSWORD)
    assert not ApiToken.objects.exists()
    assert "used already" in client.get(link).content.decode()


def test_a_made_up_link_explains_itself(client):
    assert "Ask for a new link" in client.get("/accounts/reset/MQ/abc-def").content.decode()


def test_the_answer_does_not_tell_whether_there_is_an_account(client, ann, queued):
    known = client.post(RESET, {"email": "ann@example.org"})
    unknown = client.post(RESET, {"email": "nobody@example.org"})
    assert (known.status_code, known["Location"]) == (unknown.status_code, unknown["Location"])
    assert queued == ["ann@example.org", "nobody@example.org"]


def test_a_mailbox_is_not_flooded(client, ann, queued, settings):
    settings.RESETS_PER_DAY = 2
    answers = [client.post(RESET, {"email": "ann@example.org"}) for _ in range(4)]
    assert {answer.status_code for answer in answers} == {302}
    assert len(queued) == 2


def test_asking_for_many_mailboxes_is_limited(client, queued, settings):
    settings.RESETS_PER_DAY = 1
    answers = [client.post(RESET, {"email": f"a{n}@example.org"}) for n in range(5)]
    assert [answer.status_code for answer in answers] == [302, 302, 302, 302, 429]
    assert len(queued) == 4


def test_no_address_is_refused(client, queued):
    assert client.post(RESET, {"email": "nowhere"}).status_code == 422
    assert queued == []


def test_when_mail_cannot_be_queued_the_page_says_so(client, monkeypatch):
    from marketplace.accounts import views

    def refuse(email: str) -> None:
        raise MailAway

    monkeypatch.setattr(views, "request_reset", refuse)
    answer = client.post(RESET, {"email": "ann@example.org"})
    assert answer.status_code == 422
    assert "Try again in a few minutes" in answer.content.decode()


# ---- settings and tokens -------------------------------------------------------------------------


def test_settings_are_saved(client, ann):
    client.force_login(ann)
    assert client.get("/accounts/settings").status_code == 200
    answer = client.post("/accounts/settings", {"email": "new@example.org", "bio": "Bakes LoRAs."})
    assert answer.status_code == 302
    ann.refresh_from_db()
    assert (ann.email, ann.bio) == ("new@example.org", "Bakes LoRAs.")


def test_settings_change_nothing_else(client, ann):
    client.force_login(ann)
    client.post("/accounts/settings", {"username": "root", "is_staff": "on", "password": "x"})
    ann.refresh_from_db()
    assert ann.username == "Ann"
    assert not ann.is_staff
    assert ann.check_password(PASSWORD)


def test_settings_tell_what_is_wrong(client, ann):
    client.force_login(ann)
    answer = client.post("/accounts/settings", {"email": "x", "bio": "y" * 301})
    assert answer.status_code == 422
    assert answer.content.decode().count('class="errorlist"') == 2


def make_token(client: Client, name: str = "laptop"):
    return client.post("/accounts/tokens", {"name": name, "scope": "write", "days": "30"})


def test_a_new_token_is_shown_once(client, ann):
    client.force_login(ann)
    page = make_token(client)
    [text] = re.findall(r"lm_[0-9a-f]{12}_[A-Za-z0-9-]{43}", page.content.decode())
    assert "no-store" in page["Cache-Control"]
    me = client.get("/api/v1/me", headers={"Authorization": f"Bearer {text}"})
    assert me.json()["username"] == "Ann"
    again = client.get("/accounts/tokens").content.decode()
    assert text.rpartition("_")[2] not in again
    assert ApiToken.objects.get().key in again


def test_a_second_token_of_the_same_name_is_refused(client, ann):
    client.force_login(ann)
    make_token(client)
    answer = make_token(client)
    assert answer.status_code == 422
    assert "of this name" in answer.content.decode()


def test_there_is_a_most_of_tokens(client, ann, issue):
    for number in range(MAX_TOKENS):
        issue(ann, name=f"token {number}")
    client.force_login(ann)
    answer = make_token(client)
    assert answer.status_code == 422
    assert "20 tokens" in answer.content.decode()


def test_a_lifetime_must_be_one_of_those_offered(client, ann):
    client.force_login(ann)
    answer = client.post("/accounts/tokens", {"name": "x", "scope": "read", "days": "3650"})
    assert answer.status_code == 422
    assert not ApiToken.objects.exists()


def test_a_token_is_revoked_by_its_owner_only(client, ann, bob, issue):
    issue(ann)
    address = f"/accounts/tokens/{ApiToken.objects.get().pk}/revoke"
    client.force_login(bob)
    assert client.post(address).status_code == 404
    client.force_login(ann)
    assert client.get(address).status_code == 405
    assert client.post(address).status_code == 302
    assert not ApiToken.objects.exists()


def test_what_users_write_is_escaped(client, ann):
    client.force_login(ann)
    make_token(client, "<script>alert(1)</script>")
    client.post("/accounts/settings", {"email": "", "bio": "<script>alert(2)</script>{{ 7 }}"})
    for page in ("tokens", "settings"):
        text = client.get(f"/accounts/{page}").content.decode()
        assert "<script>alert" not in text
