"""Exports from the request to the push: what is refused before the other hub is asked."""

from __future__ import annotations

import pytest

from marketplace.catalogue.services import delete_adapter, yank_revision
from marketplace.uploads import tasks
from marketplace.uploads.errors import UploadError
from marketplace.uploads.models import Export
from marketplace.uploads.sealing import unseal
from marketplace.uploads.services import ExportRequest, TooMany, start_export
from tests.factories import make_adapter, make_revision

SECRET = "hf_" + "s3cret" * 5
HUB = "http://hub.test:8080"
OTHER = "http://other.test"


@pytest.fixture(autouse=True)
def rung(monkeypatch, settings) -> list[tuple[str, ...]]:
    settings.HUBS, settings.INTERNAL_HUBS = [HUB, OTHER], []
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(tasks.run_transfer, "delay", lambda *asked: calls.append(asked))
    return calls


@pytest.fixture
def adapter(owner):
    return make_adapter(owner=owner, name="mine")


def asked(adapter, **fields):
    return ExportRequest(
        **({"revision": adapter.latest, "repo_id": "org/there", "token": SECRET} | fields)
    )


def test_it_works(owner, adapter, rung, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        job = start_export(owner, asked(adapter, repo_id="  org/there ", hub=f"{OTHER}/"))

    job = Export.objects.get(pk=job.pk)
    assert (job.hub, job.repo_id, job.private, job.state) == (OTHER, "org/there", True, "queued")
    assert SECRET not in job.sealed_token
    assert unseal(job.sealed_token, job.pk) == SECRET
    assert len(rung) == 1
    assert SECRET not in str(rung)


def test_the_first_hub_is_meant_where_none_is_named(owner, adapter):
    assert start_export(owner, asked(adapter)).hub == HUB


def test_an_export_that_runs_already_is_not_made_twice(owner, adapter):
    first = start_export(owner, asked(adapter))
    assert start_export(owner, asked(adapter)) == first
    assert start_export(owner, asked(adapter, hub=OTHER)) != first
    assert start_export(owner, asked(adapter, repo_id="org/else")) != first
    newer = make_revision(adapter)
    assert start_export(owner, asked(adapter, revision=newer)) != first


def test_all_that_is_wrong_is_told_at_once(owner, adapter):
    wrong = asked(adapter, hub="http://169.254.169.254", repo_id="a--b", token="ä b")
    with pytest.raises(UploadError) as caught:
        start_export(owner, wrong)
    assert set(caught.value.problems) == {"hub", "repo_id", "token"}
    assert not Export.objects.exists()


def test_a_token_is_needed(owner, adapter):
    with pytest.raises(UploadError, match="may write"):
        start_export(owner, asked(adapter, token="  "))


def test_only_ones_own_adapters_can_leave(stranger, owner, adapter):
    with pytest.raises(UploadError) as caught:
        start_export(stranger, asked(adapter))
    assert set(caught.value.problems) == {"revision"}
    delete_adapter(adapter, by=owner)
    with pytest.raises(UploadError):
        start_export(owner, asked(adapter))


def test_a_yanked_version_can_still_leave(owner, adapter):
    yank_revision(adapter.latest, by=owner, reason="Old.")
    assert start_export(owner, asked(adapter)).state == "queued"


def test_nobody_starts_more_than_allowed(owner, adapter, settings):
    for number in range(4):
        start_export(owner, asked(adapter, repo_id=f"org/there{number}"))
    with pytest.raises(TooMany, match="not over yet"):
        start_export(owner, asked(adapter, repo_id="org/more"))
    Export.objects.update(state="cancelled", finished_at="2026-01-01T00:00:00Z", sealed_token="")
    settings.MAX_TRANSFERS_PER_HOUR = 4
    with pytest.raises(TooMany, match="in an hour"):
        start_export(owner, asked(adapter, repo_id="org/more"))
