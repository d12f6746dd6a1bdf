"""Imports from the request to the shelf, against a hub that behaves and one that does not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.utils import timezone

from marketplace.accounts.models import User
from marketplace.catalogue.models import Adapter, Revision
from marketplace.catalogue.services import delete_adapter
from marketplace.live.models import Event
from marketplace.uploads import fetching, quarantine, runner, tasks
from marketplace.uploads.errors import UploadError
from marketplace.uploads.models import Import, Upload
from marketplace.uploads.services import (
    ImportRequest,
    TooMany,
    cancel_transfer,
    publish_upload,
    retry_transfer,
    start_import,
    validate_upload,
)
from tests.factories import make_adapter, make_base_model, make_user, tiny_adapter_files
from tests.marketplace.uploads.conftest import checkpoint_of
from tests.marketplace.uploads.hub_server import COMMIT, FakeHub, running_hub, sha256

WEIGHTS = "adapter_model.safetensors"
TOKEN = "hf_" + "s3cret" * 5


@pytest.fixture(autouse=True)
def _no_queue(monkeypatch) -> None:
    """The tests ring the bell themselves."""
    monkeypatch.setattr(tasks.run_transfer, "delay", lambda *_: None)
    monkeypatch.setattr(fetching, "PAUSE_SECONDS", 0.01)


@pytest.fixture
def files() -> dict[str, bytes]:
    readme = "---\nlicense: mit\nsummary: Picks.\n---\n# From afar\n"
    return tiny_adapter_files(seed=3, readme=readme)


@pytest.fixture
def hub(files, settings, base) -> Iterator[FakeHub]:
    with running_hub(files) as hub:
        settings.INTERNAL_HUBS = [hub.url]
        settings.HUBS = []
        yield hub


def begin(owner: User, **asked: object) -> Import:
    return start_import(owner, ImportRequest(**({"repo": "org/adapter"} | asked)))


def run(job: Import) -> Import:
    runner.run(Import, job.pk, worker="w1")
    job.refresh_from_db()
    return job


def ranges_of(seen: list[tuple[str, dict[str, str]]]) -> list[str | None]:
    """The Range headers of requests for the weights."""
    return [headers.get("range") for path, headers in seen if path.endswith(WEIGHTS)]


def test_it_works(owner, hub, files):
    job = run(begin(owner))

    assert (job.state, job.error) == ("succeeded", "")
    revision = job.revision
    assert revision.adapter.full_name == "ann/adapter"
    assert revision.adapter.visibility == Adapter.Visibility.PRIVATE
    assert revision.adapter.licence == "MIT"
    assert revision.origin == Revision.Origin.IMPORT
    assert revision.provenance == {
        "source": f"{hub.url}/org/adapter",
        "revision": COMMIT,
        "asked": "main",
        "files": {path: sha256(content) for path, content in files.items()},
    }
    assert job.bytes_done == job.bytes_total == sum(map(len, files.values()))
    assert revision.weights_sha256 == sha256(files[WEIGHTS])
    assert not quarantine.folder_of(job.upload_id).exists()
    kinds = list(Event.objects.filter(channel=job.channel).values_list("kind", flat=True))
    assert kinds[0] == "state"
    assert "progress" in kinds


def test_the_same_revision_once_more_is_no_new_one(owner, hub):
    first = run(begin(owner))
    asked = len(hub.seen)
    again = run(begin(owner))
    assert again.state == "succeeded"
    assert again.revision == first.revision
    assert Revision.objects.count() == 1
    assert len(hub.seen) == asked + 1  # only the description was read
    assert not Upload.objects.open().exists()


def test_a_new_commit_becomes_the_next_version(owner, hub):
    run(begin(owner))
    hub.commit = "d" * 40
    hub.files |= tiny_adapter_files(seed=4)
    job = run(begin(owner, visibility="public"))
    assert job.revision.label == "v2"
    assert job.revision.adapter.visibility == "public"


def test_a_request_that_runs_already_is_not_made_twice(owner, hub):
    assert begin(owner) == begin(owner, repo=f"{hub.url}/org/adapter")
    assert begin(owner, name="other") != begin(owner)


def test_a_checkpoint_is_converted_without_being_run(owner, hub, base):
    del hub.files[WEIGHTS]
    shapes = {
        f"base_model.model.{path}.{side}.weight": shape
        for path in base.module_table
        if path.endswith(("q_proj", "v_proj"))
        for side, shape in (("lora_A", (4, 32)), ("lora_B", (32, 4)))
    }
    hub.files["adapter_model.bin"] = checkpoint_of(shapes)
    job = run(begin(owner))
    assert job.error == ""
    paths = {file.path for file in job.revision.files.all()}
    assert WEIGHTS in paths
    assert "adapter_model.bin" not in paths
    told = job.revision.provenance["files"]
    assert told["adapter_model.bin"] == sha256(hub.files["adapter_model.bin"])


def test_only_files_of_an_adapter_are_fetched(owner, hub):
    hub.files |= {
        "tokenizer_config.json": b"{}",
        "tokenizer.json": b"x" * (600 * 1024),
        "optimizer.pt": b"no",
        "checkpoint-1/adapter_model.safetensors": b"no",
        "../evil.json": b"{}",
        "a\\b.json": b"{}",
        "run.py": b"no",
    }
    job = run(begin(owner))
    assert job.state == "succeeded"
    fetched = {path.rpartition("/")[2] for path in hub.paths() if "/resolve/" in path}
    assert fetched == {"adapter_config.json", WEIGHTS, "README.md", "tokenizer_config.json"}


def test_a_broken_connection_is_resumed_where_it_broke(owner, hub, files):
    size = len(files[WEIGHTS])
    hub.files = {name: files[name] for name in (WEIGHTS, "adapter_config.json")}
    hub.cuts = [2000, 700, 300]
    hub.cuts.insert(0, len(files["adapter_config.json"]))
    job = run(begin(owner))
    assert job.error == ""
    ranges = [
        headers["range"]
        for path, headers in hub.seen
        if path.endswith(WEIGHTS) and "range" in headers
    ]
    assert ranges == ["bytes=2000-", "bytes=2700-", "bytes=3000-"]
    assert job.revision.weights_size == size


def test_a_hub_that_cannot_resume_is_read_from_the_beginning(owner, hub, files):
    hub.ignores_range = True
    hub.cuts = [10**6, 10**6, 2000]
    assert run(begin(owner)).state == "succeeded"


def test_a_killed_worker_costs_no_byte(owner, hub, files, settings):
    """The next worker goes on where the part in quarantine ends."""
    job = begin(owner, token=TOKEN)
    sealed = job.sealed_token
    assert TOKEN not in sealed
    hub.cuts = [10**6, 10**6, 700] + [0] * 20
    run(job)
    assert (job.state, job.error_code) == ("failed", "connection")
    part = quarantine.size_of_part(job.upload_id, WEIGHTS)
    assert part > 0
    # As if the worker had died there: the row still runs, its lease is over.
    Import.objects.filter(pk=job.pk).update(
        state="running", finished_at=None, lease_expires_at=timezone.now() - timedelta(minutes=1)
    )
    hub.cuts, hub.commit, asked = [], "e" * 40, len(hub.seen)
    assert tasks.requeue_lost_transfers() == 1
    assert run(job).state == "succeeded"
    later = hub.seen[asked:]
    assert later[0][0].endswith(f"/revision/{COMMIT}")  # the commit of the first attempt
    assert [headers.get("range") for path, headers in later if WEIGHTS in path] == [
        f"bytes={part}-"
    ]


def test_a_job_that_loses_its_worker_too_often_fails(owner, hub, settings):
    job = begin(owner, token=TOKEN)
    past = timezone.now() - timedelta(minutes=1)
    Import.objects.filter(pk=job.pk).update(state="running", attempts=3, lease_expires_at=past)
    tasks.requeue_lost_transfers()
    job.refresh_from_db()
    assert (job.state, job.error_code, job.sealed_token) == ("failed", "worker_lost", "")


def test_a_job_whose_message_was_lost_is_sent_again(owner, hub):
    job = begin(owner)
    Import.objects.filter(pk=job.pk).update(sent_at=timezone.now() - timedelta(minutes=5))
    assert tasks.requeue_lost_transfers() == 1
    assert tasks.requeue_lost_transfers() == 0


def test_the_task_runs_the_job(owner, hub):
    job = begin(owner)
    tasks.run_transfer("import", str(job.pk))
    job.refresh_from_db()
    assert job.state == "succeeded"
    tasks.run_transfer("import", str(job.pk))  # a message that arrives twice
    assert Import.objects.get(pk=job.pk).attempts == 1


# ---- tokens --------------------------------------------------------------------------------------


def test_a_private_repository_is_read_with_the_users_token(owner, hub):
    hub.token = TOKEN
    job = run(begin(owner, token=f" {TOKEN}\n"))
    assert job.state == "succeeded"
    assert job.sealed_token == ""
    assert all(headers["authorization"] == f"Bearer {TOKEN}" for _, headers in hub.seen)


@pytest.mark.parametrize("ending", ["succeeded", "failed", "cancelled"])
def test_the_token_is_forgotten_however_the_job_ends(owner, hub, ending):
    job = begin(owner, token=TOKEN)
    if ending == "failed":
        hub.files.clear()
    if ending == "cancelled":
        cancel_transfer(job)
    else:
        run(job)
    assert (job.state, job.sealed_token) == (ending, "")
    everything = json.dumps(list(Import.objects.values()), default=str)
    assert TOKEN not in everything


def test_the_token_does_not_follow_a_redirect_to_another_place(owner, hub, settings, files):
    with running_hub(files) as other:
        hub.token = TOKEN
        hub.redirects = {WEIGHTS: f"{other.url}/org/adapter/resolve/x/{WEIGHTS}"}
        settings.INTERNAL_HUBS = [hub.url, other.url]
        job = run(begin(owner, token=TOKEN, hub=hub.url))
        assert job.state == "succeeded"
        assert [path for path, _ in other.seen] == [f"/org/adapter/resolve/x/{WEIGHTS}"]
        assert "authorization" not in other.seen[0][1]


def test_a_token_sealed_with_another_key_is_asked_for_again(owner, hub, settings):
    job = begin(owner, token=TOKEN)
    settings.SECRET_KEY = "changed" * 10
    run(job)
    assert (job.state, job.error_code) == ("failed", "token")
    hub.token = TOKEN
    retry_transfer(job, token=TOKEN)
    assert run(job).state == "succeeded"


# ---- what can go wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trouble", "code", "told"),
    [
        ({"statuses": {"/main": [401]}, "error_code": "RepoNotFound"}, "repo_not_found", "private"),
        ({"statuses": {"/main": [404]}}, "repo_not_found", "There is no"),
        ({"statuses": {"/main": [404]}, "error_code": "RevisionNotFound"}, "revision_not_found",
         "no such branch"),
        ({"statuses": {"/main": [403]}, "error_code": "GatedRepo"}, "gated", "let in"),
        ({"statuses": {"/main": [500] * 9}}, "busy", "500"),
        ({"statuses": {"/main": [429] * 9}}, "busy", "429"),
        ({"statuses": {"/main": [418]}}, "protocol", "418"),
        ({"statuses": {WEIGHTS: [404]}, "error_code": "EntryNotFound"}, "file_not_found",
         "any more"),
        ({"info": b"<html>"}, "protocol", "JSON"),
        ({"info": {"sha": "x", "siblings": []}}, "protocol", "lacks"),
        ({"info": {"sha": COMMIT, "siblings": [{}] * 10_001}}, "too_large", "10,001 files"),
        ({"info": b" " * (5 * 1024 * 1024)}, "too_large", "more than it should"),
        ({"info": {"sha": COMMIT, "siblings": ["x", {"rfilename": "a", "size": -1}]}},
         "no_adapter", "nothing that can be fetched"),
        ({"etag": "0" * 64}, "changed", "not the file"),
        ({"headers": {"Content-Encoding": "gzip"}}, "protocol", "compressed"),
        ({"endless": True}, "too_large", "more than it should"),
        ({"redirects": {WEIGHTS: "/org/adapter/resolve/x/" + WEIGHTS}}, "protocol", "redirects"),
        ({"redirects": {WEIGHTS: "http://169.254.169.254/latest"}}, "address", "169.254.169.254"),
        ({"redirects": {WEIGHTS: "file:///etc/passwd"}}, "address", "not followed"),
        ({"redirects": {WEIGHTS: "http://[::"}}, "protocol", "no address"),
    ],
)  # fmt: skip
def test_what_a_hub_does_wrong_is_told_and_nothing_is_kept(owner, hub, trouble, code, told):
    for name, value in trouble.items():
        setattr(hub, name, value)
    job = run(begin(owner))
    assert (job.state, job.error_code) == ("failed", code)
    assert told in job.error
    assert Adapter.objects.count() == 0


def test_a_hub_out_of_order_for_a_moment_is_asked_again(owner, hub):
    hub.statuses = {"/main": [503, 500], WEIGHTS: [502]}
    assert run(begin(owner)).state == "succeeded"


def test_bytes_that_are_not_the_promised_ones_are_refused(owner, hub):
    described = hub.describe()
    for entry in described["siblings"]:
        entry["blobId"] = "0" * 40
        if "lfs" in entry:
            entry["lfs"]["sha256"] = "0" * 64
    hub.info, hub.etag = described, "weak-and-unknown"
    job = run(begin(owner))
    assert (job.state, job.error_code) == ("failed", "changed")


def test_a_wrong_part_is_refused(owner, hub):
    hub.cuts = [10**6, 10**6, 100]
    hub.headers = {"Content-Range": "bytes 0-9/10"}
    job = run(begin(owner))
    assert (job.state, job.error_code) == ("failed", "protocol")


def test_weights_above_the_limit_are_not_fetched(owner, hub, settings):
    settings.MAX_WEIGHTS_BYTES = 1000
    job = run(begin(owner))
    assert (job.error_code, len(hub.seen)) == ("too_large", 1)


def test_a_slow_hub_is_left(owner, hub, settings, monkeypatch):
    settings.TRANSFER_SECONDS = 0
    job = run(begin(owner))
    assert (job.state, job.error_code) == ("failed", "too_slow")


def test_a_crawling_hub_is_left(owner, hub, monkeypatch):
    monkeypatch.setattr("marketplace.uploads.hub_reader.PACE_SECONDS", 0.0)
    monkeypatch.setattr("marketplace.uploads.hub_reader.PACE_BYTES", 10**12)
    job = run(begin(owner))
    assert (job.error_code, "slowly" in job.error) == ("too_slow", True)


def test_an_adapter_of_an_unknown_base_waits_in_a_draft_and_stays_an_import(owner, hub, base):
    hub.files |= tiny_adapter_files(seed=5, base_name="far/away")
    job = run(begin(owner))
    assert (job.state, job.error_code) == ("failed", "refused")
    assert "far/away" in job.error
    upload = job.upload
    assert validate_upload(upload, base_model=base).state == "ready"
    revision = publish_upload(upload)
    assert revision.origin == Revision.Origin.IMPORT
    assert revision.provenance["revision"] == COMMIT


def test_a_base_that_is_chosen_is_used(owner, hub, base):
    hub.files |= tiny_adapter_files(seed=5, base_name="far/away")
    assert run(begin(owner, base_model=base)).state == "succeeded"


def test_a_card_that_the_shelf_refuses_is_told(owner, hub):
    delete_adapter(make_adapter(owner, "adapter"), by=owner)
    job = run(begin(owner))
    assert (job.state, job.error_code) == ("failed", "card")
    assert "deleted" in job.error
    assert job.upload.state == "ready"


def test_a_file_replaced_in_the_draft_ends_the_provenance(owner, hub, base, fill):
    hub.files |= tiny_adapter_files(seed=5, base_name="far/away")
    upload = run(begin(owner)).upload
    fill(upload, {"README.md": b"# mine\n"})
    validate_upload(upload, base_model=base)
    assert publish_upload(upload).origin == Revision.Origin.UPLOAD


def test_a_fault_of_ours_is_told_without_a_traceback(owner, hub, monkeypatch, caplog):
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(fetching, "choose_files", broken)
    job = run(begin(owner))
    assert (job.state, job.error_code) == ("failed", "internal")
    assert "a bug" not in job.error + job.error_fix
    assert "a bug" in caplog.text


# ---- stopping and limits -------------------------------------------------------------------------


def test_a_running_import_stops_when_asked_to_and_leaves_nothing(owner, hub, monkeypatch):
    job = begin(owner)
    monkeypatch.setattr("marketplace.uploads.holding.REPORT_SECONDS", -1.0)
    real = fetching._Fetcher.fetch

    def cancelled(self, files):
        cancel_transfer(Import.objects.get(pk=job.pk))
        real(self, files)

    monkeypatch.setattr(fetching._Fetcher, "fetch", cancelled)
    run(job)
    assert job.state == "cancelled"
    assert not Upload.objects.exists()
    assert Adapter.objects.count() == 0


def test_a_queued_import_is_cancelled_at_once_and_can_be_retried(owner, hub):
    job = cancel_transfer(begin(owner))
    assert job.state == "cancelled"
    assert cancel_transfer(job).state == "cancelled"
    run(job)
    assert job.state == "cancelled"
    retry_transfer(job)
    assert run(job).state == "succeeded"
    with pytest.raises(UploadError, match="Only a failed"):
        retry_transfer(job)


def test_a_worker_that_lost_the_job_writes_nothing(owner, hub, monkeypatch):
    job = begin(owner)
    monkeypatch.setattr("marketplace.uploads.holding.REPORT_SECONDS", -1.0)
    real = fetching._Fetcher.fetch

    def robbed(self, files):
        Import.objects.filter(pk=job.pk).update(fence=99)
        real(self, files)

    monkeypatch.setattr(fetching._Fetcher, "fetch", robbed)
    run(job)
    assert (job.state, job.fence) == ("running", 99)


def test_nobody_starts_more_than_allowed(owner, hub, settings):
    for number in range(4):
        begin(owner, name=f"a{number}")
    with pytest.raises(TooMany, match="not over yet"):
        begin(owner, name="a5")
    Import.objects.update(state="cancelled", finished_at=timezone.now())
    settings.MAX_TRANSFERS_PER_HOUR = 4
    with pytest.raises(TooMany, match="in an hour"):
        begin(owner, name="a5")


def test_all_that_is_wrong_with_a_request_is_told_at_once(owner, hub):
    with pytest.raises(UploadError) as caught:
        begin(owner, repo="noslash", revision="a..b", name="-x", token="a b", visibility="secret")
    assert set(caught.value.problems) == {"repo_id", "revision", "name", "token", "visibility"}


def test_an_import_belongs_to_its_owner(owner, stranger, hub):
    job = begin(owner)
    assert job in Import.objects.owned_by(owner)
    assert job not in Import.objects.owned_by(stranger)
    assert make_user("carl") != owner
    assert make_base_model() is not None
