from __future__ import annotations

import errno
import os
import resource
import threading
import tracemalloc
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings as site_settings
from django.core.files.storage import default_storage
from django.db import connection
from django.utils import timezone

from marketplace.blobs import services
from marketplace.blobs.hashing import hash_bytes
from marketplace.blobs.models import Blob
from marketplace.blobs.services import (
    DamagedBlob,
    StorageFull,
    copy_blob,
    local_path,
    open_blob,
    read_blob,
    store_bytes,
    store_file,
)

pytestmark = pytest.mark.django_db
CONTENT = b"weights " * 1000


def stored_files() -> list[Path]:
    root = Path(site_settings.STORAGES["default"]["OPTIONS"]["location"])
    return [path for path in root.rglob("*") if path.is_file()]


def local(blob: Blob) -> Path:
    path = local_path(blob)
    assert path is not None
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return path


@contextmanager
def room_for(size: int):
    """Let the operating system refuse files larger than this, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_it_works(source):
    found = hash_bytes(CONTENT)
    blob = store_file(source, sha256=found.sha256, git_sha1=found.git_sha1, size=found.size)
    assert (blob.sha256, blob.git_sha1, blob.size) == (found.sha256, found.git_sha1, len(CONTENT))
    assert Blob.objects.get() == blob
    with open_blob(blob) as file:
        assert file.read() == CONTENT
    assert source.exists()


def test_the_object_is_named_by_its_hash_and_nothing_else_is_left(source):
    blob = store_file(source)
    assert stored_files() == [local(blob)]
    assert local(blob).match(f"sha256/{blob.sha256[:2]}/{blob.sha256}")


def test_bytes_and_empty_content_can_be_stored():
    assert read_blob(store_bytes(b"card")) == b"card"
    assert read_blob(store_bytes(b"")) == b""


def test_the_same_content_is_one_object(source):
    blob = store_file(source)
    inode = local(blob).stat().st_ino
    assert store_bytes(CONTENT) == blob
    assert local(blob).stat().st_ino == inode
    assert Blob.objects.count() == 1


def test_content_that_is_taken_into_use_again_becomes_young(source):
    blob = store_file(source)
    long_ago = timezone.now() - timedelta(days=9)
    Blob.objects.update(created_at=long_ago)
    os.utime(local(blob), (0, 0))
    again = store_file(source)
    assert again.created_at > timezone.now() - timedelta(minutes=1)
    assert local(blob).stat().st_mtime > 1e9


@pytest.mark.parametrize("promise", [{"sha256": "0" * 64}, {"git_sha1": "0" * 40}, {"size": 1}])
def test_content_that_is_not_the_promised_one_is_refused(source, promise):
    with pytest.raises(DamagedBlob):
        store_file(source, **promise)
    assert stored_files() == []
    assert not Blob.objects.exists()


def test_a_file_that_changes_while_it_is_stored_is_refused(source, monkeypatch):

    def hash_then_change(path: Path):
        found = hash_bytes(path.read_bytes())
        path.write_bytes(b"another" + CONTENT)
        return found

    monkeypatch.setattr(services, "hash_file", hash_then_change)
    with pytest.raises(DamagedBlob):
        store_file(source)
    assert stored_files() == []
    assert not Blob.objects.exists()


def test_an_object_that_was_cut_off_is_written_anew(source):
    blob = store_file(source)
    local(blob).write_bytes(CONTENT[:10])
    store_file(source)
    assert read_blob(blob) == CONTENT


def test_an_object_that_is_gone_is_written_anew(source):
    blob = store_file(source)
    local(blob).unlink()
    store_file(source)
    assert read_blob(blob) == CONTENT


# ---- faults --------------------------------------------------------------------------------------


def test_a_full_disk_is_told_and_leaves_nothing(source):
    with room_for(1000), pytest.raises(StorageFull, match="storage is full"):
        store_file(source)
    assert stored_files() == []
    assert not Blob.objects.exists()
    store_file(source)
    assert Blob.objects.count() == 1


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("code", "expected"),
    [(errno.ENOSPC, StorageFull), (errno.EDQUOT, StorageFull), (errno.EIO, OSError)],
)
def test_a_failing_disk_leaves_no_row_and_no_half_object(source, monkeypatch, step, code, expected):
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    target = os if step == "fsync" else Path
    with monkeypatch.context() as patch:
        patch.setattr(target, step, fail)
        with pytest.raises(expected):
            store_file(source)
    assert stored_files() == []
    assert not Blob.objects.exists()


def test_a_crash_between_object_and_row_is_mended_by_the_next_one(source, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Blob.objects, "get_or_create", lambda **_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            store_file(source)
    assert not Blob.objects.exists()
    assert len(stored_files()) == 1
    store_file(source)
    assert len(stored_files()) == 1
    assert Blob.objects.count() == 1


def test_a_folder_that_cannot_be_synced_is_no_failure(source, monkeypatch):
    fsync = os.fsync

    def sync_files_only(handle: int) -> None:
        if Path(f"/proc/self/fd/{handle}").is_dir():
            raise OSError(errno.EINVAL, "no folders here")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", sync_files_only)
    assert read_blob(store_file(source)) == CONTENT


def test_missing_content_is_named_and_says_what_helps():
    blob = store_bytes(b"card")
    local(blob).unlink()
    with pytest.raises(DamagedBlob, match="verify_storage") as caught:
        open_blob(blob)
    assert blob.sha256[:12] in str(caught.value)


@pytest.mark.django_db(transaction=True)
def test_many_requests_may_store_the_same_content_at_once(source):
    barrier, errors = threading.Barrier(8), []

    def run() -> None:
        barrier.wait()
        try:
            store_file(source)
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert Blob.objects.count() == 1
    assert len(stored_files()) == 1


# ---- reading back --------------------------------------------------------------------------------


def test_a_copy_is_checked(source, tmp_path):
    blob = store_file(source)
    copy_blob(blob, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == CONTENT
    local(blob).write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(DamagedBlob):
        copy_blob(blob, tmp_path / "second")
    assert not (tmp_path / "second").exists()


def test_a_copy_that_finds_no_room_leaves_nothing(source, tmp_path):
    blob = store_file(source)
    with room_for(1000), pytest.raises(StorageFull):
        copy_blob(blob, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_no_more_than_asked_for_is_read():
    assert read_blob(store_bytes(CONTENT), limit=5) == CONTENT[:5]


def test_a_large_file_passes_in_little_memory(tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(48 * 1024 * 1024)
    tracemalloc.start()
    try:
        blob = store_file(path)
        copy_blob(blob, tmp_path / "copy")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * 1024 * 1024


# ---- an object storage ---------------------------------------------------------------------------


@pytest.fixture
def remote(settings):
    """A storage that has no folders on this machine, as an object storage has none."""
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
    }


def test_an_object_storage_works_alike(remote, source):
    blob = store_file(source)
    assert local_path(blob) is None
    assert read_blob(blob) == CONTENT
    assert store_bytes(CONTENT) == blob


def test_two_saves_at_once_leave_one_object(remote, source, monkeypatch):
    blob = store_file(source)
    with monkeypatch.context() as patch:
        # The other request saves between our look and our save.
        patch.setattr(default_storage, "exists", lambda *_: False, raising=False)
        store_file(source)
    folder = f"sha256/{blob.sha256[:2]}"
    assert default_storage.listdir(folder) == ([], [blob.sha256])
