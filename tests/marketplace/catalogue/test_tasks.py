from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.files.storage import default_storage
from django.utils import timezone

from marketplace.blobs.models import Blob
from marketplace.catalogue import services
from marketplace.catalogue.models import Adapter, BaseModel
from marketplace.catalogue.tasks import collect_orphan_blobs, compute_module_table
from tests.factories import make_adapter, make_blob

pytestmark = pytest.mark.django_db


def make_old(**which) -> None:
    Blob.objects.filter(**which).update(created_at=timezone.now() - timedelta(days=2))


def test_it_works() -> None:
    adapter = make_adapter()
    unused = make_blob(b"unused")
    make_old()
    assert collect_orphan_blobs() == 1
    assert not default_storage.exists(unused.storage_name)
    for file in adapter.latest.files.all():
        assert default_storage.exists(file.blob.storage_name)


def test_young_content_may_belong_to_a_request_that_still_runs() -> None:
    make_blob(b"just stored")
    assert collect_orphan_blobs() == 0


def test_content_stored_again_is_young_again() -> None:
    make_blob(b"wanted")
    make_old()
    make_blob(b"wanted")
    assert collect_orphan_blobs() == 0


def test_files_of_a_deleted_adapter_go_after_their_time_of_grace() -> None:
    adapter = make_adapter()
    services.delete_adapter(adapter, by=adapter.owner)
    make_old()
    assert collect_orphan_blobs() == 0
    Adapter.objects.update(deleted_at=timezone.now() - timedelta(days=31))
    assert collect_orphan_blobs() == 3
    assert Adapter.objects.filter(pk=adapter.pk).exists()


def test_a_base_model_that_is_gone_needs_no_table(monkeypatch) -> None:
    seen: list[BaseModel] = []
    monkeypatch.setitem(
        __import__("sys").modules,
        "marketplace.catalogue.runner",
        type("Runner", (), {"fill_module_table": staticmethod(seen.append)}),
    )
    compute_module_table(123456)
    assert seen == []
    adapter = make_adapter()
    compute_module_table(adapter.base_model_id)
    assert seen == [adapter.base_model]
