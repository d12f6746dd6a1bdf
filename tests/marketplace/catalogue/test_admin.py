from __future__ import annotations

import pytest
from django.test import Client
from kombu.exceptions import OperationalError

from marketplace.catalogue.models import BaseModel
from marketplace.catalogue.tasks import compute_module_table
from tests.factories import make_adapter, make_base_model, make_user

pytestmark = pytest.mark.django_db
ADD = "/admin/catalogue/basemodel/add/"


@pytest.fixture
def staff() -> Client:
    client = Client()
    client.force_login(make_user("root-user", is_staff=True, is_superuser=True))
    return client


@pytest.fixture
def queue(monkeypatch) -> list[int]:
    sent: list[int] = []
    monkeypatch.setattr(compute_module_table, "delay", sent.append)
    return sent


def form(**changes: str) -> dict[str, str]:
    fields = {
        "name": "org/model",
        "aliases": "[]",
        "source_kind": "hub",
        "location": "org/model",
        "prompt_format": "plain",
    }
    return fields | changes


def test_it_works(staff, queue, django_capture_on_commit_callbacks) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        assert staff.post(ADD, form()).status_code == 302
    base_model = BaseModel.objects.get()
    assert base_model.state == BaseModel.State.PENDING
    assert queue == [base_model.pk]


def test_only_a_new_source_is_read_again(staff, queue, django_capture_on_commit_callbacks) -> None:
    base_model = make_base_model("org/model", source_kind="hub", location="org/model")
    address = f"/admin/catalogue/basemodel/{base_model.pk}/change/"
    with django_capture_on_commit_callbacks(execute=True):
        staff.post(address, form(licence="MIT"))
    base_model.refresh_from_db()
    assert (base_model.licence, base_model.state, queue) == ("MIT", "ready", [])
    with django_capture_on_commit_callbacks(execute=True):
        staff.post(address, form(revision="abc"))
    assert queue == [base_model.pk]


def test_layers_can_be_read_again(staff, queue, django_capture_on_commit_callbacks) -> None:
    base_model = make_base_model()
    data = {"action": "recompute", "_selected_action": [base_model.pk]}
    with django_capture_on_commit_callbacks(execute=True):
        staff.post("/admin/catalogue/basemodel/", data)
    assert queue == [base_model.pk]


def test_a_queue_that_is_away_is_told(
    staff, monkeypatch, django_capture_on_commit_callbacks
) -> None:
    def fail(pk: int) -> None:
        raise OperationalError

    monkeypatch.setattr(compute_module_table, "delay", fail)
    with django_capture_on_commit_callbacks(execute=True):
        staff.post(ADD, form())
    assert BaseModel.objects.count() == 1


def test_adapters_and_revisions_are_looked_at_only(staff) -> None:
    adapter = make_adapter()
    for kind in ("adapter", "revision"):
        assert staff.get(f"/admin/catalogue/{kind}/?q=adapter").status_code == 200
        assert staff.get(f"/admin/catalogue/{kind}/add/").status_code == 403
    address = f"/admin/catalogue/adapter/{adapter.pk}"
    assert staff.get(f"{address}/change/").status_code == 200
    assert staff.post(f"{address}/delete/", {"post": "yes"}).status_code == 403
