from __future__ import annotations

import pytest
from django.core.cache import cache
from django.db import OperationalError, connection
from django.http import HttpResponse
from django.test import Client, RequestFactory, override_settings
from django.urls import path

from marketplace import pages
from marketplace.catalogue.services import CardFields, Parent
from marketplace.urls import urlpatterns as site_urlpatterns
from tests.factories import make_revision, make_user

pytestmark = pytest.mark.django_db


def _fail(request):
    raise RuntimeError("a secret: hunter2")


def _lose_database(request):
    raise OperationalError("connection to 10.0.0.7 refused")


def _forbid(request):
    from django.core.exceptions import PermissionDenied

    raise PermissionDenied("Only its owner may change this.")


def _refuse(request):
    from django.core.exceptions import SuspiciousOperation

    raise SuspiciousOperation("odd")


def _post(request):
    return HttpResponse("posted")


urlpatterns = [
    path("fail", _fail),
    path("api/fail", _fail),
    path("lose", _lose_database),
    path("forbid", _forbid),
    path("refuse", _refuse),
    path("post", _post),
    *site_urlpatterns,
]
handler400 = pages.bad_request
handler403 = pages.forbidden
handler404 = pages.not_found
handler500 = pages.server_error


@pytest.fixture
def quiet_client() -> Client:
    """A client that sees error pages as a browser does."""
    return Client(raise_request_exception=False)


def test_it_works(client):
    make_revision(owner=make_user("alice"), name="pick_animal", card=CardFields(summary="Find it."))

    response = client.get("/")

    assert response.status_code == 200
    assert b"pick_animal" in response.content
    assert b"Browse 1 adapter<" in response.content


def test_the_front_page_of_an_empty_site_says_how_to_fill_it(client):
    response = client.get("/")

    assert b"The shelf is empty" in response.content
    assert b"Open the catalogue" in response.content


def test_the_front_page_draws_the_newest_composition(client):
    owner = make_user("alice")
    parent = make_revision(owner=owner, name="parent")
    child = make_revision(
        owner=owner, name="mixed", parents=[Parent(revision=parent, weight=-0.27)]
    )
    assert child.parents.count() == 1

    html = client.get("/").content.decode()

    assert 'class="lineage"' in html
    assert "\u22120.27" in html
    assert "./mixed" in html


def test_the_front_page_hides_private_adapters(client):
    revision = make_revision(owner=make_user("alice"), name="secret_recipe")
    revision.adapter.visibility = "private"
    revision.adapter.save()

    assert b"secret_recipe" not in client.get("/").content


@pytest.mark.parametrize(("slug", "title"), pages.DOCS)
def test_each_documentation_page_is_listed_and_shown(client, slug, title):
    response = client.get(f"/docs/{slug}")

    assert response.status_code == 200
    assert f"<title>{title} ·" in response.content.decode()


def test_an_unknown_documentation_page_is_not_found(client):
    assert client.get("/docs/nonsense").status_code == 404


def test_the_api_reference_lists_the_catalogue(client):
    html = client.get("/api/v1/docs").content.decode()

    assert "/api/v1/adapters" in html
    assert "GET" in html


def test_the_style_guide_is_for_developers_only(client, settings):
    settings.DEBUG = False
    assert client.get("/styleguide").status_code == 404

    settings.DEBUG = True
    response = client.get("/styleguide")
    assert response.status_code == 200
    assert b"style=" not in response.content


# ---- theme


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_chosen_theme_is_kept_and_rendered_by_the_server(client, theme):
    response = client.post("/theme", {"theme": theme, "next": "/docs"})

    assert response.url == "/docs"
    assert response.cookies["theme"]["samesite"] == "Lax"
    assert f'<html lang="en" data-theme="{theme}">' in client.get("/docs").content.decode()


def test_following_the_system_forgets_the_cookie(client):
    client.post("/theme", {"theme": "dark"})

    client.post("/theme", {"theme": "system"})

    assert '<html lang="en">' in client.get("/docs").content.decode()


def test_a_made_up_theme_reaches_no_page(client):
    client.cookies["theme"] = '"><script>'

    assert b"data-theme" not in client.get("/docs").content


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example", "", "javascript:x"])
def test_the_theme_form_never_leads_off_the_site(client, target):
    assert client.post("/theme", {"theme": "dark", "next": target}).url == "/"


def test_the_theme_is_changed_by_post_only(client):
    assert client.get("/theme").status_code == 405


# ---- health


def test_the_process_answers(client):
    response = client.get("/healthz")

    assert response.content == b"ok\n"
    assert "no-cache" in response["Cache-Control"]


def test_a_site_with_all_its_servers_is_ready(client):
    response = client.get("/readyz")

    assert response.status_code == 200
    assert response.json() == {
        "status": "ok",
        "checks": {"database": "ok", "cache": "ok", "queue": "ok"},
    }


def test_a_site_without_queue_and_cache_still_serves(client, monkeypatch):
    monkeypatch.setattr(cache, "get", _raise(ConnectionError("no cache")))
    monkeypatch.setattr(
        "marketplace.celery.app.connection_for_write", _raise(ConnectionError("no queue"))
    )

    response = client.get("/readyz")

    assert response.status_code == 200
    assert response.json()["status"] == "degraded"
    assert response.json()["checks"] == {
        "database": "ok",
        "cache": "unavailable",
        "queue": "unavailable",
    }


def test_a_site_without_its_database_is_not_ready(client, monkeypatch):
    monkeypatch.setattr(connection, "cursor", _raise(OperationalError("gone")))

    response = client.get("/readyz")

    assert response.status_code == 503
    assert response.json()["status"] == "unavailable"
    assert "gone" not in response.content.decode()


def _raise(error: Exception):
    def raising(*args: object, **kwargs: object) -> None:
        raise error

    return raising


# ---- errors


@override_settings(ROOT_URLCONF=__name__)
@pytest.mark.parametrize(
    ("address", "status", "words"),
    [
        ("/fail", 500, "Something went wrong on our side"),
        ("/lose", 503, "not available for a moment"),
        ("/forbid", 403, "Only its owner may change this."),
        ("/refuse", 400, "could not be understood"),
        ("/docs/none", 404, "There is nothing at this address"),
    ],
)
def test_an_error_page_says_what_to_do_and_nothing_of_the_inside(
    quiet_client, address, status, words
):
    response = quiet_client.get(address, headers={"X-Request-Id": "quoted-by-a-proxy"})

    html = response.content.decode()
    assert response.status_code == status
    assert words in html
    assert "quoted-by-a-proxy" in html
    for inside in ("hunter2", "10.0.0.7", "Traceback", "/marketplace/", "Error:"):
        assert inside not in html


@override_settings(ROOT_URLCONF=__name__)
def test_a_lost_database_asks_to_come_back(quiet_client):
    assert quiet_client.get("/lose")["Retry-After"] == "10"


@override_settings(ROOT_URLCONF=__name__)
def test_errors_of_the_api_are_json(quiet_client):
    response = quiet_client.get("/api/fail")

    assert response.status_code == 500
    assert response.json() == {
        "error": "Something went wrong on our side.",
        "request_id": response["X-Request-Id"],
    }


def test_error_pages_need_no_database(django_assert_num_queries):
    request = RequestFactory().get("/anything")

    with django_assert_num_queries(0):
        for status in (400, 500, 503):
            assert pages.error_page(request, status).status_code == status


@pytest.mark.parametrize("status", [413, 429])
def test_limits_have_pages_of_their_own(client, status):
    request = RequestFactory().get("/x")
    request.user = make_user("alice")

    response = pages.error_page(request, status, detail="At most 300 MB.")

    assert response.status_code == status
    assert b"At most 300 MB." in response.content


@override_settings(ROOT_URLCONF=__name__)
def test_a_form_without_its_token_is_refused_with_words():
    response = Client(enforce_csrf_checks=True).post("/post", {"a": "b"})

    assert response.status_code == 403
    assert b"The form was open for too long" in response.content


# ---- base template


def test_pages_obey_a_strict_content_security_policy(client):
    response = client.get("/")

    policy = response["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy
    html = response.content.decode()
    assert "style=" not in html
    assert "http://" not in html.replace("http://testserver", "").replace(
        "http://www.w3.org", ""
    ), "nothing is fetched from elsewhere"


def test_the_menu_names_the_visitor_and_lets_them_out(client):
    client.force_login(make_user("alice"))

    html = client.get("/docs").content.decode()

    assert "Signed in as <b>alice</b>" in html
    assert 'action="/accounts/sign-out"' in html
    assert 'aria-current="page">Docs' in html


def test_the_cache_is_not_needed_to_show_a_page(client, monkeypatch):
    monkeypatch.setattr(cache, "get", _raise(ConnectionError("no cache")))

    assert client.get("/docs").status_code == 200
