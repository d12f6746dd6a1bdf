"""The files of a gated adapter are only for people whom its owner let in."""

from __future__ import annotations

import pytest
from django.test import Client

from marketplace.catalogue.models import Adapter, Revision
from tests.factories import make_adapter, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def gated() -> Adapter:
    adapter = make_adapter()
    Adapter.objects.filter(pk=adapter.pk).update(gated="manual")
    adapter.refresh_from_db()
    return adapter


def addresses(adapter: Adapter) -> list[str]:
    page = adapter.get_absolute_url()
    return [f"{page}/download/main/adapter_model.safetensors", f"{page}/zip/main"]


def test_it_works(client: Client, gated: Adapter):
    assert client.get(gated.get_absolute_url()).status_code == 200
    for address in addresses(gated):
        assert client.get(address).status_code == 403

    client.force_login(make_user("stranger"))
    for address in addresses(gated):
        assert client.get(address).status_code == 403


def test_the_owner_reads_them(client: Client, gated: Adapter):
    client.force_login(gated.owner)

    for address in addresses(gated):
        answer = client.get(address)
        assert answer.status_code == 200
        assert b"".join(answer.streaming_content)


def test_nobody_else_composes_with_it(gated: Adapter):
    stranger = make_user("stranger")

    assert not Revision.objects.readable_files_by(stranger).filter(pk=gated.latest_id).exists()
    assert Revision.objects.readable_files_by(gated.owner).filter(pk=gated.latest_id).exists()
