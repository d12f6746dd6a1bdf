"""The pages of imports and exports: begin, watch, stop, try again, for their owner alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.test import Client
from django.utils import timezone

from marketplace.accounts.models import User
from marketplace.catalogue.services import delete_adapter
from marketplace.uploads import fetching, runner, tasks
from marketplace.uploads.holding import Hold
from marketplace.uploads.models import Export, Import
from marketplace.uploads.services import (
    ExportRequest,
    ImportRequest,
    cancel_transfer,
    start_export,
    start_import,
)
from tests.factories import make_adapter, make_base_model, tiny_adapter_files
from tests.marketplace.uploads.hub_server import COMMIT, FakeHub, running_hub

TOKEN = "hf_" + "s3cret" * 5
HUB = "http://hub.test:8080"


@pytest.fixture(autouse=True)
def _no_queue(monkeypatch, settings) -> None:
    monkeypatch.setattr(tasks.run_transfer, "delay", lambda *_: None)
    monkeypatch.setattr(fetching, "PAUSE_SECONDS", 0.01)
    settings.HUBS, settings.INTERNAL_HUBS = [HUB], []


@pytest.fixture
def hub(settings, base) -> Iterator[FakeHub]:
    with running_hub(tiny_adapter_files(seed=3, readme="---\nlicense: mit\n---\n# Far\n")) as hub:
        settings.INTERNAL_HUBS = [hub.url]
        settings.HUBS = []
        yield hub


@pytest.fixture
def job(owner: User) -> Import:
    return start_import(owner, ImportRequest(repo="org/adapter"))


@pytest.fixture
def export(owner: User) -> Export:
    adapter = make_adapter(owner=owner, name="mine")
    return start_export(owner, ExportRequest(adapter.latest, "org/there", token=TOKEN))


def fail(job: Import | Export, **told: str) -> None:
    job.move(frm="queued", to="failed", finished_at=timezone.now(), **told)


def text_of(client: Client, address: str) -> str:
    answer = client.get(address)
    assert answer.status_code == 200
    return " ".join(answer.content.decode().split())


def test_it_works(signed_in: Client, hub: FakeHub):
    assert "Import from a hub" in text_of(signed_in, "/upload")
    begun = signed_in.post("/import", {"repo_id": f"{hub.url}/org/adapter", "token": TOKEN})
    job = Import.objects.get()
    assert begun.url == f"/imports/{job.pk}"
    page = text_of(signed_in, begun.url)
    assert "Waiting for a worker" in page
    assert f'data-stream="/live/import:{job.pk}?after=' in page

    runner.run(Import, job.pk, worker="w")

    page = text_of(signed_in, begun.url)
    assert '<a href="/ann/adapter">ann/adapter v1</a>, private' in page
    assert "adapter_model.safetensors" in page
    assert COMMIT in page
    assert "data-stream" not in page
    assert "org/adapter" in text_of(signed_in, "/imports")
    assert "ann/adapter v1" in text_of(signed_in, "/imports")


def test_a_form_shows_every_problem_and_never_the_token(signed_in: Client):
    wrong = {"repo_id": "none", "revision": "..", "name": "-x", "token": f"{TOKEN} {TOKEN}"}
    answer = signed_in.post("/import", wrong)
    page = answer.content.decode()
    assert answer.status_code == 400
    assert "is no repository" in page
    assert "Give a branch" in page
    assert "A token has no spaces" in page
    assert TOKEN not in page
    assert not Import.objects.exists()


def test_a_hub_that_is_not_listed_is_refused(signed_in: Client):
    answer = signed_in.post("/import", {"repo_id": "http://169.254.169.254/org/adapter"})
    assert answer.status_code == 400
    assert "not among the hubs" in answer.content.decode()
    assert signed_in.post("/import", {"repo_id": "a/b", "hub": "http://x"}).status_code == 422


def test_what_an_address_names_is_filled_in(signed_in: Client, base):
    page = text_of(signed_in, "/import?repo_id=org/adapter&revision=v2&token=tok-3x")
    assert 'value="org/adapter"' in page
    assert 'value="v2"' in page
    assert 'value="tok-3x"' not in page
    assert "hub.test:8080" in page
    assert base.name in page


def test_without_hubs_the_page_says_so(signed_in: Client, settings, owner):
    settings.HUBS = []
    assert "No hub is allowed here" in text_of(signed_in, "/import")
    make_adapter(owner=owner, name="mine")
    assert "No hub is allowed here" in text_of(signed_in, "/export?adapter=ann/mine")


def test_a_chosen_base_is_kept(signed_in: Client, base):
    make_base_model("other/base")
    signed_in.post("/import", {"repo_id": "org/adapter", "base_model": "other/base"})
    assert Import.objects.get().base_model.name == "other/base"


def test_the_owner_has_to_wait_after_too_many(signed_in: Client, settings, job):
    settings.MAX_TRANSFERS_PER_HOUR = 1
    answer = signed_in.post("/import", {"repo_id": "org/other"})
    assert answer.status_code == 429
    assert "in an hour" in answer.content.decode()


def test_progress_is_a_part_of_the_page(signed_in: Client, job, upload):
    hold = Hold.claim(Import, job.pk, worker="w")
    hold.report(phase="fetching", bytes_done=500_000, bytes_total=1_000_000, upload=upload)
    upload.files.create(path="adapter_config.json", received=400, complete=True, sha256="ab" * 32)
    upload.files.create(path="adapter_model.safetensors", received=499_600)
    part = text_of(signed_in, f"/imports/{job.pk}/progress")
    assert '<div class="stack" id="live" data-state="running"' in part
    assert 'data-sentence="Fetching the files, 50 %"' in part
    assert "under way" in part
    assert "<h1" not in part
    assert "Cancel" in text_of(signed_in, f"/imports/{job.pk}")


def test_a_failure_is_told_with_what_to_do_and_its_draft(signed_in: Client, job, upload):
    Import.objects.filter(pk=job.pk).update(upload=upload)
    fail(job, error="The files are not accepted: a < b.", error_fix="Mend them there.")
    page = text_of(signed_in, f"/imports/{job.pk}")
    assert "The files are not accepted: a &lt; b." in page
    assert "Mend them there." in page
    assert f'<a href="/upload/{upload.pk}">Open the draft</a>' in page
    assert "Try again" in page


def test_an_import_is_cancelled_and_tried_again(signed_in: Client, job):
    answer = signed_in.post(f"/imports/{job.pk}/cancel")
    assert answer.url == f"/imports/{job.pk}"
    assert "Cancelled." in text_of(signed_in, answer.url)
    signed_in.post(f"/imports/{job.pk}/retry", {"token": TOKEN})
    job.refresh_from_db()
    assert job.state == "queued"
    assert TOKEN not in job.sealed_token
    page = signed_in.post(f"/imports/{job.pk}/retry", follow=True).content.decode()
    assert "Only a failed or cancelled import" in page


def test_an_adapter_that_was_deleted_since_is_not_linked(signed_in: Client, owner, job):
    adapter = make_adapter(owner=owner, name="gone")
    revision = adapter.latest
    job.move(frm="queued", to="succeeded", revision=revision)
    delete_adapter(adapter, by=owner)
    page = text_of(signed_in, f"/imports/{job.pk}")
    assert "not here any more" in page
    assert 'href="/ann/gone"' not in page


def test_an_export_begins_on_the_adapters_page(signed_in: Client, owner):
    make_adapter(owner=owner, name="mine")
    assert 'href="/export?adapter=ann/mine"' in text_of(signed_in, "/ann/mine")
    page = text_of(signed_in, "/export?adapter=ann/mine&revision=v1")
    assert '<option value="v1" selected>' in page
    asked = {"revision": "v1", "repo_id": "org/there", "token": TOKEN, "private": "on"}
    begun = signed_in.post("/export?adapter=ann/mine", asked)
    job = Export.objects.get()
    assert begun.url == f"/exports/{job.pk}"
    assert (job.hub, job.private, job.revision.label) == (HUB, True, "v1")
    assert "Export of ann/mine v1" in text_of(signed_in, begun.url)
    assert "org/there" in text_of(signed_in, "/exports")
    assert "org/there" in text_of(signed_in, "/export?adapter=ann/mine")


def test_an_export_shows_what_is_wrong(signed_in: Client, owner):
    make_adapter(owner=owner, name="mine")
    address = "/export?adapter=ann/mine"
    assert signed_in.post(address, {"repo_id": "org/there"}).status_code == 422
    asked = {"revision": "v1", "repo_id": "there", "token": TOKEN}
    answer = signed_in.post(address, asked)
    assert answer.status_code == 400
    assert "Write owner/name" in answer.content.decode()
    assert TOKEN not in answer.content.decode()


def test_only_ones_own_adapter_is_exported(signed_in: Client, stranger):
    make_adapter(owner=stranger, name="theirs")
    for name in ("bob/theirs", "ann/none", "", "nothing"):
        assert signed_in.get("/export", {"adapter": name}).status_code == 404
    assert "/export" not in signed_in.get("/bob/theirs").content.decode()


def test_an_export_says_where_it_went(signed_in: Client, export):
    url = f"{HUB}/org/there/commit/{COMMIT}"
    export.move(frm="queued", to="succeeded", commit=COMMIT, commit_url=url)
    page = text_of(signed_in, f"/exports/{export.pk}")
    assert f'href="{url}"' in page
    assert "there</td>" in page


def test_a_hub_cannot_make_a_link_to_somewhere_else(signed_in: Client, export):
    export.move(frm="queued", to="succeeded", commit_url="javascript:alert(1)")
    page = text_of(signed_in, f"/exports/{export.pk}")
    assert "javascript:" not in page
    assert f'href="{HUB}/org/there"' in page


def test_an_export_is_tried_again_with_its_token_only(signed_in: Client, export):
    fail(export, error="No.")
    page = signed_in.post(f"/exports/{export.pk}/retry", follow=True).content.decode()
    assert "The token is not kept" in page
    signed_in.post(f"/exports/{export.pk}/retry", {"token": TOKEN})
    export.refresh_from_db()
    assert export.state == "queued"
    cancel_transfer(export)
    assert "What was sent before" in text_of(signed_in, f"/exports/{export.pk}")


def test_empty_lists_say_what_to_do(signed_in: Client):
    assert "No import yet" in text_of(signed_in, "/imports")
    assert "No export yet" in text_of(signed_in, "/exports")


@pytest.mark.parametrize("kind", ["import", "export"])
@pytest.mark.parametrize("part", ["", "/progress", "/cancel", "/retry"])
def test_a_transfer_exists_for_its_owner_alone(
    client: Client, stranger, job, export, kind: str, part: str
):
    mine = job if kind == "import" else export
    address = f"/{kind}s/{mine.pk}{part}"
    ask = client.post if part in {"/cancel", "/retry"} else client.get
    assert ask(address).url.startswith("/accounts/sign-in")
    client.force_login(stranger)
    assert ask(address).status_code == 404
    mine.refresh_from_db()
    assert (mine.state, mine.cancel_requested) == ("queued", False)
    assert str(mine.pk) not in client.get(f"/{kind}s").content.decode()


def test_looking_changes_nothing(signed_in: Client, job):
    for part in ("cancel", "retry"):
        assert signed_in.get(f"/imports/{job.pk}/{part}").status_code == 405
    job.refresh_from_db()
    assert job.state == "queued"
