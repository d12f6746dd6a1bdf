"""Drafts from the first byte to the shelf, and every way of not getting there."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection
from django.utils import timezone

from marketplace.blobs.models import Blob
from marketplace.blobs.services import read_blob
from marketplace.catalogue.models import Adapter, Revision
from marketplace.catalogue.services import read_used_bytes
from marketplace.uploads import quarantine
from marketplace.uploads.errors import Busy, Conflict, NoRoom, TooLarge, UploadError, WrongHash
from marketplace.uploads.models import Upload
from marketplace.uploads.services import (
    Announced,
    create_upload,
    discard_upload,
    publish_upload,
    receive_file,
    remove_file,
    remove_stale_uploads,
    update_draft_card,
    validate_upload,
)
from marketplace.uploads.services import drafts as drafts_module
from marketplace.uploads.tasks import clean_up_quarantine
from tests.factories import make_base_model, make_user, tiny_adapter_files
from tests.marketplace.uploads.conftest import Fill, change_config

WEIGHTS = "adapter_model.safetensors"


def test_it_works(upload: Upload, fill: Fill):
    validate_upload(fill(upload))
    assert (upload.state, upload.problems) == (Upload.State.READY, [])
    assert upload.adapter_summary is not None
    assert upload.adapter_summary.rank == 4

    revision = publish_upload(upload)

    assert revision.adapter.full_name == "ann/first"
    assert revision.label == "v1"
    assert revision.origin == Revision.Origin.UPLOAD
    assert {file.path for file in revision.files.all()} == {
        "README.md",
        "adapter_config.json",
        WEIGHTS,
    }
    assert not quarantine.folder_of(upload.pk).exists()


def test_the_configuration_on_the_shelf_is_the_rebuilt_one(upload: Upload, fill: Fill):
    files = change_config(tiny_adapter_files(seed=2), megatron_core="megatron.core")
    validate_upload(fill(upload, files))

    revision = publish_upload(upload)

    config = json.loads(read_blob(revision.files.get(path="adapter_config.json").blob))
    assert "megatron_core" not in config
    assert config["base_model_name_or_path"] == "tiny/base"
    assert read_blob(revision.files.get(path=WEIGHTS).blob) == files[WEIGHTS]


def test_a_name_of_ones_own_gets_a_new_version(owner, base, fill: Fill):
    for seed in (1, 2):
        upload = create_upload(owner, name="twice")
        validate_upload(fill(upload, tiny_adapter_files(seed=seed)))
        publish_upload(upload)

    adapter = Adapter.objects.get(name="twice")
    assert [revision.label for revision in adapter.revisions.all()] == ["v2", "v1"]


def test_publishing_twice_gives_one_revision(upload: Upload, fill: Fill):
    validate_upload(fill(upload))

    first = publish_upload(upload)
    second = publish_upload(Upload.objects.get(pk=upload.pk))

    assert first == second
    assert Revision.objects.count() == 1


def test_an_unchecked_draft_cannot_be_published(upload: Upload, fill: Fill):
    with pytest.raises(Conflict, match="Have them checked first"):
        publish_upload(fill(upload))


def test_a_refused_name_keeps_the_draft(upload: Upload, fill: Fill):
    update_draft_card(upload, {"name": "a--b", "licence": "Mine", "samples": "a => b"})
    validate_upload(fill(upload))

    with pytest.raises(UploadError) as refused:
        publish_upload(upload)

    assert set(refused.value.problems) == {"name", "licence"}
    upload.refresh_from_db()
    assert upload.state == Upload.State.READY
    update_draft_card(upload, {"name": "better", "licence": "MIT"})
    assert publish_upload(upload).adapter.samples.count() == 1


def test_bad_samples_are_told_with_their_line(upload: Upload, fill: Fill):
    update_draft_card(upload, {"samples": "a => b\nno arrow"})
    validate_upload(fill(upload))

    with pytest.raises(UploadError) as refused:
        publish_upload(upload)

    assert "line 2" in refused.value.problems["samples"][0]


def test_files_that_vanished_are_asked_for_again(upload: Upload, fill: Fill):
    validate_upload(fill(upload))
    quarantine.remove(upload.pk, WEIGHTS)

    with pytest.raises(Conflict, match="Send them again"):
        publish_upload(upload)


def test_bytes_that_changed_after_the_check_are_not_published(upload: Upload, fill: Fill):
    validate_upload(fill(upload))
    (quarantine.folder_of(upload.pk) / WEIGHTS).write_bytes(b"other bytes")

    with pytest.raises(Conflict):
        publish_upload(upload)

    assert not Revision.objects.exists()


def test_a_full_storage_keeps_the_draft(upload: Upload, fill: Fill, monkeypatch):
    def no_room(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    validate_upload(fill(upload))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", no_room)
        with pytest.raises(NoRoom, match="make room"):
            publish_upload(upload)

    upload.refresh_from_db()
    assert upload.state == Upload.State.READY
    assert not Revision.objects.exists()
    assert publish_upload(upload).label == "v1"


def test_a_new_file_makes_the_check_void(upload: Upload, fill: Fill):
    validate_upload(fill(upload))

    receive_file(upload, "README.md", [b"# New"], Announced())

    upload.refresh_from_db()
    assert upload.state == Upload.State.RECEIVING
    assert upload.summary_json is None


# ---- the card -----------------------------------------------------------------------------------


def test_the_readme_fills_the_card(upload: Upload, fill: Fill):
    readme = "---\nlicense: mit\ntags: [lora, spelling]\nlanguage: en\nauthor: me\n---\n# Spells\n"
    validate_upload(fill(upload, tiny_adapter_files(seed=1, readme=readme)))

    assert upload.licence == "MIT"
    assert upload.tags == ["spelling"]
    assert upload.card == "# Spells\n"
    revision = publish_upload(upload)
    assert read_blob(revision.files.get(path="README.md").blob).decode() == readme


def test_a_changed_card_is_written_into_the_readme(upload: Upload, fill: Fill):
    readme = "---\nlicense: mit\nauthor: me\n---\n# Spells\n"
    validate_upload(fill(upload, tiny_adapter_files(seed=1, readme=readme)))
    update_draft_card(upload, {"card": "# Spells well\n", "tags": ["words"]})

    revision = publish_upload(upload)

    text = read_blob(revision.files.get(path="README.md").blob).decode()
    assert text.endswith("# Spells well\n")
    assert "author: me" in text
    assert "license: mit" in text
    assert "- words" in text
    assert "base_model: tiny/base" in text


def test_an_adapter_without_a_readme_gets_one(upload: Upload, fill: Fill):
    files = tiny_adapter_files(seed=1)
    del files["README.md"]
    validate_upload(fill(upload, files))

    revision = publish_upload(upload)

    assert b"# first" in read_blob(revision.files.get(path="README.md").blob)


@pytest.mark.parametrize(
    ("readme", "words"),
    [
        (b"---\na: &x [1]\nb: *x\n---\n", "Aliases"),
        (b"---\n: : :\n---\n", "no valid YAML"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_a_readme_that_cannot_be_read_is_a_problem(upload: Upload, fill: Fill, readme, words):
    files = tiny_adapter_files(seed=1) | {"README.md": readme}

    validate_upload(fill(upload, files))

    assert upload.state == Upload.State.REFUSED
    assert words in str(upload.found_problems[0])


def test_what_is_typed_is_kept_even_where_it_is_wrong(upload: Upload):
    update_draft_card(upload, {"name": "a--b\x00", "summary": "x" * 500, "tags": ["No Tag!"]})

    upload.refresh_from_db()
    assert upload.name == "a--b\ufffd"
    assert len(upload.summary) == 200
    assert upload.tags == ["No Tag!"]


def test_a_published_draft_keeps_its_card(upload: Upload, fill: Fill):
    validate_upload(fill(upload))
    publish_upload(upload)
    upload.refresh_from_db()

    with pytest.raises(Conflict, match="adapter's page"):
        update_draft_card(upload, {"name": "other"})
    with pytest.raises(Conflict):
        receive_file(upload, "README.md", [b"x"], Announced())


@pytest.mark.parametrize(
    ("card", "name", "summary"),
    [
        (
            "# Spells *well* -- v2.\n\nPuts letters in a row.\n",
            "Spells-well-v2",
            "Puts letters in a row.",
        ),
        ("# x\n\n<img src=x>\n", "x", ""),
        ("no heading\n", "", "no heading"),
        ("# …\n", "", ""),
        ("", "", ""),
    ],
)
def test_name_and_summary_are_suggested_by_the_readme(owner, base, fill: Fill, card, name, summary):
    upload = create_upload(owner)

    validate_upload(fill(upload, tiny_adapter_files(seed=1, readme=card)))

    assert (upload.name, upload.summary) == (name, summary)


# ---- receiving -----------------------------------------------------------------------------------


def test_bytes_are_hashed_on_the_way(upload: Upload):
    row = receive_file(upload, "README.md", [b"ab", b"cd"], Announced(size=4))

    assert (row.received, row.complete) == (4, True)
    assert row.sha256 == hashlib.sha256(b"abcd").hexdigest()


@pytest.mark.parametrize(
    "name", ["optimizer.pt", "../../etc/passwd", "..", "a/b/run.sh", "x.json\n", "ünï.json", ".env"]
)
def test_only_parts_of_an_adapter_are_taken(upload: Upload, name: str):
    with pytest.raises(UploadError, match="not part of a LoRA adapter"):
        receive_file(upload, name, [b"x"], Announced(size=1))

    assert not upload.files.exists()


def test_a_folder_in_front_of_the_name_is_left_out(upload: Upload):
    assert receive_file(upload, "run/adapter_config.json", [b"{}"], Announced()).path == (
        "adapter_config.json"
    )


def test_an_announced_size_above_the_limit_is_refused_before_a_byte(upload: Upload, settings):
    settings.MAX_WEIGHTS_BYTES = 100

    chunks = iter([b"x"])
    with pytest.raises(TooLarge, match="at most 100 are allowed"):
        receive_file(upload, WEIGHTS, chunks, Announced(size=101))

    assert list(chunks) == [b"x"]


def test_a_silent_size_is_stopped_at_the_limit(upload: Upload, settings):
    settings.MAX_WEIGHTS_BYTES = 100
    read = []

    def chunks() -> Iterator[bytes]:
        for _ in range(1000):
            read.append(50)
            yield b"x" * 50

    with pytest.raises(TooLarge, match="float16"):
        receive_file(upload, WEIGHTS, chunks(), Announced())

    assert len(read) == 3
    assert not upload.files.exists()
    assert _files_left(upload) == set()


def test_more_bytes_than_announced_are_refused(upload: Upload):
    with pytest.raises(TooLarge, match="shorten it"):
        receive_file(upload, "README.md", [b"x" * 11], Announced(size=10))


def test_an_upload_has_a_limit_altogether(upload: Upload, settings):
    settings.MAX_UPLOAD_BYTES = 10
    receive_file(upload, "README.md", [b"x" * 6], Announced(size=6))

    with pytest.raises(TooLarge, match="altogether"):
        receive_file(upload, "notes.txt", [b"x" * 5], Announced(size=5))
    with pytest.raises(TooLarge):
        receive_file(upload, "notes.txt", [b"x" * 5], Announced())
    assert receive_file(upload, "notes.txt", [b"x" * 4], Announced()).complete


def test_an_upload_has_so_many_files_and_no_more(upload: Upload, settings):
    settings.MAX_FILES_PER_REVISION = 2
    for name in ("a.txt", "b.txt"):
        receive_file(upload, name, [b"x"], Announced())

    with pytest.raises(UploadError, match="at most 2 files"):
        receive_file(upload, "c.txt", [b"x"], Announced())


def test_the_quota_counts_drafts_and_the_shelf(owner, base, upload: Upload, fill: Fill, settings):
    validate_upload(fill(upload))
    publish_upload(upload)
    settings.USER_QUOTA_BYTES = read_used_bytes(owner) + 10
    second = create_upload(owner)
    receive_file(second, "a.txt", [b"x" * 8], Announced(size=8))

    with pytest.raises(TooLarge, match="2 bytes are free"):
        receive_file(second, "b.txt", [b"x" * 3], Announced(size=3))
    # A file that is sent again does not count twice.
    assert receive_file(second, "a.txt", [b"x" * 9], Announced(size=9)).complete
    with pytest.raises(TooLarge):
        receive_file(second, "b.txt", [b"xyz"], Announced())


def test_the_wrong_hash_is_refused(upload: Upload):
    with pytest.raises(WrongHash, match="Send it again"):
        receive_file(upload, "a.txt", [b"x"], Announced(sha256="0" * 64))
    assert not upload.files.exists()
    right = hashlib.sha256(b"x").hexdigest()
    assert receive_file(upload, "a.txt", [b"x"], Announced(sha256=right.upper())).complete


def test_a_broken_off_file_goes_on_where_it_stopped(upload: Upload):
    def broken() -> Iterator[bytes]:
        yield b"abc"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        receive_file(upload, "a.txt", broken(), Announced(size=6))
    row = upload.files.get()
    assert (row.received, row.reserved, row.complete) == (3, 3, False)
    with pytest.raises(Conflict, match=r"a\.txt has not arrived completely"):
        validate_upload(upload)

    row = receive_file(upload, "a.txt", [b"def"], Announced(size=6, offset=3))

    assert row.complete
    assert row.sha256 == hashlib.sha256(b"abcdef").hexdigest()
    assert (quarantine.folder_of(upload.pk) / "a.txt").read_bytes() == b"abcdef"


def test_an_offset_that_does_not_fit_says_where_to_go_on(upload: Upload):
    row = receive_file(upload, "a.txt", [b"ab"], Announced(size=5))
    assert not row.complete

    with pytest.raises(UploadError, match="Go on at offset 2"):
        receive_file(upload, "a.txt", [b"x"], Announced(size=5, offset=4))

    assert upload.files.get().received == 2


def test_a_file_begun_again_replaces_the_part(upload: Upload):
    receive_file(upload, "a.txt", [b"ab"], Announced(size=5))

    receive_file(upload, "a.txt", [b"xyz"], Announced(size=3))

    assert (quarantine.folder_of(upload.pk) / "a.txt").read_bytes() == b"xyz"


def test_one_file_has_one_writer(upload: Upload):
    def chunks() -> Iterator[bytes]:
        with pytest.raises(Busy, match="Another request is sending"):
            receive_file(upload, "a.txt", [b"intruder"], Announced())
        with pytest.raises(Busy):
            remove_file(upload, "a.txt")
        with pytest.raises(Conflict, match="not arrived"):
            validate_upload(upload)
        yield b"first"

    receive_file(upload, "a.txt", chunks(), Announced(size=5))

    assert (quarantine.folder_of(upload.pk) / "a.txt").read_bytes() == b"first"


@pytest.mark.parametrize("size", [5, 9])
def test_a_draft_discarded_while_a_file_comes_in_leaves_nothing(upload: Upload, size: int):
    draft = upload.pk

    def chunks() -> Iterator[bytes]:
        yield b"fi"
        discard_upload(Upload.objects.get(pk=draft))
        yield b"rst"

    with pytest.raises(Conflict, match="was discarded"):
        receive_file(upload, "a.txt", chunks(), Announced(size=size))

    assert not quarantine.folder_of(draft).exists()
    with pytest.raises(Conflict, match="was discarded"):
        receive_file(upload, "a.txt", [b"x"], Announced())


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_and_nothing_stays(upload: Upload, code: int):
    def chunks() -> Iterator[bytes]:
        yield b"x"
        raise OSError(code, os.strerror(code))

    with pytest.raises(NoRoom, match="disk is full"):
        receive_file(upload, "a.txt", chunks(), Announced(size=9))

    assert not upload.files.exists()
    assert _files_left(upload) == set()


def test_a_removed_file_is_gone(upload: Upload):
    receive_file(upload, "a.txt", [b"x"], Announced())

    remove_file(upload, "a.txt")

    assert not upload.files.exists()
    assert _files_left(upload) == set()


@pytest.mark.django_db(transaction=True)
def test_parallel_uploads_together_stay_below_the_quota(settings):
    owner = make_user("carol")
    settings.USER_QUOTA_BYTES = 100
    uploads = [create_upload(owner) for _ in range(6)]
    start = threading.Barrier(len(uploads))
    outcomes = []

    def send(upload: Upload) -> None:
        try:
            start.wait(10)
            receive_file(upload, "a.txt", [b"x" * 40], Announced(size=40))
            outcomes.append("taken")
        except TooLarge:
            outcomes.append("refused")
        finally:
            connection.close()

    threads = [threading.Thread(target=send, args=(upload,)) for upload in uploads]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == ["refused"] * 4 + ["taken"] * 2


@pytest.mark.django_db(transaction=True)
def test_two_parallel_publications_of_a_draft_make_one_revision(fill: Fill):
    make_base_model()
    upload = validate_upload(fill(create_upload(make_user("dora"), name="one")))
    start = threading.Barrier(2)
    labels = []

    def publish() -> None:
        try:
            own = Upload.objects.get(pk=upload.pk)
            start.wait(10)
            labels.append(publish_upload(own).label)
        except Conflict:
            labels.append("conflict")
        finally:
            connection.close()

    threads = [threading.Thread(target=publish) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert "v1" in labels
    assert Revision.objects.count() == 1


# ---- checking ------------------------------------------------------------------------------------


def test_a_check_is_the_only_one_of_its_owner(owner, upload: Upload, fill: Fill):
    Upload.objects.create(owner=owner, state=Upload.State.VALIDATING)

    with pytest.raises(Busy, match="being checked"):
        validate_upload(fill(upload))


def test_a_check_that_a_restart_cut_off_is_done_again(upload: Upload, fill: Fill):
    fill(upload)
    long_ago = timezone.now() - timedelta(hours=1)
    Upload.objects.filter(pk=upload.pk).update(state=Upload.State.VALIDATING, updated_at=long_ago)
    upload.refresh_from_db()
    assert upload.check_is_stale

    validate_upload(upload)

    assert upload.state == Upload.State.READY


def test_a_published_draft_is_not_checked_again(upload: Upload, fill: Fill):
    validate_upload(fill(upload))
    publish_upload(upload)

    with pytest.raises(Conflict, match="published already"):
        validate_upload(upload)


def test_a_check_that_breaks_leaves_the_draft_as_it_was(upload: Upload, fill: Fill, monkeypatch):
    def explode(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("marketplace.uploads.services.checking.validate_folder", explode)
    with pytest.raises(RuntimeError):
        validate_upload(fill(upload))

    upload.refresh_from_db()
    assert upload.state == Upload.State.RECEIVING


def test_a_chosen_base_stays_chosen(upload: Upload, fill: Fill):
    other = make_base_model("other/base")
    fill(upload, tiny_adapter_files(seed=1, base_name="somebody/unknown"))
    validate_upload(upload, base_model=other)
    assert upload.state == Upload.State.READY

    receive_file(upload, "notes.txt", [b"x"], Announced())
    validate_upload(upload)

    assert upload.state == Upload.State.READY
    assert upload.base_model == other
    revision = publish_upload(upload)
    config = json.loads(read_blob(revision.files.get(path="adapter_config.json").blob))
    assert config["base_model_name_or_path"] == "other/base"


# ---- the end -------------------------------------------------------------------------------------


def test_discarding_leaves_nothing(upload: Upload, fill: Fill):
    fill(upload)
    folder = quarantine.folder_of(upload.pk)
    assert folder.exists()

    discard_upload(upload)

    assert not folder.exists()
    assert not Upload.objects.exists()


def test_forgotten_drafts_and_folders_are_removed(owner, upload: Upload, fill: Fill, settings):
    fill(upload)
    young = fill(create_upload(owner), {"a.txt": b"x"})
    Upload.objects.filter(pk=upload.pk).update(updated_at=timezone.now() - timedelta(days=2))
    orphan = Path(settings.QUARANTINE_DIR) / "0f0e0d0c-0000-4000-8000-000000000000"
    orphan.mkdir()
    other = Path(settings.QUARANTINE_DIR) / "not-ours"
    other.mkdir()
    for folder in (orphan, other):
        os.utime(folder, (0, 0))

    assert clean_up_quarantine() == 1

    assert list(Upload.objects.all()) == [young]
    assert {path.name for path in Path(settings.QUARANTINE_DIR).iterdir()} == {
        str(young.pk),
        "not-ours",
    }


def test_an_aborted_upload_leaves_no_trace_after_the_clean_up(upload: Upload):
    def broken() -> Iterator[bytes]:
        yield b"abc"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        receive_file(upload, "a.txt", broken(), Announced(size=6))
    Upload.objects.update(updated_at=timezone.now() - timedelta(days=2))

    remove_stale_uploads()

    assert not quarantine.folder_of(upload.pk).exists()
    assert not Blob.objects.exists()
    assert Upload.objects.all().reserved_bytes() == 0


def test_nothing_to_clean_up_is_fine(db):
    assert remove_stale_uploads() == 0


def test_drafts_are_limited(owner, monkeypatch):
    monkeypatch.setattr(drafts_module, "MAX_OPEN_DRAFTS", 1)
    create_upload(owner)

    with pytest.raises(Conflict, match="Publish or discard one first"):
        create_upload(owner)


def _files_left(upload: Upload) -> set[str]:
    folder = quarantine.folder_of(upload.pk)
    return {path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}
