from __future__ import annotations

import os
import time
from io import StringIO
from pathlib import Path

import pytest
from django.core.files.storage import default_storage
from django.core.management import CommandError, call_command

from marketplace.blobs.checking import Finding, check_storage, find_orphans, remove_orphan
from marketplace.blobs.models import Blob
from marketplace.blobs.services import local_path, store_bytes

pytestmark = pytest.mark.django_db
OLD = time.time() - 25 * 3600


def path_of(blob: Blob) -> Path:
    return Path(str(local_path(blob)))


def make_orphan(content: bytes = b"orphan", *, modified: float = OLD) -> Path:
    blob = store_bytes(content)
    path = path_of(blob)
    blob.delete()
    os.utime(path, (modified, modified))
    return path


def verify(*arguments: str) -> tuple[int, str]:
    out = StringIO()
    try:
        call_command("verify_storage", *arguments, stdout=out)
    except SystemExit as leaving:
        return int(str(leaving.code)), out.getvalue()
    return 0, out.getvalue()


def test_it_works():
    store_bytes(b"one")
    store_bytes(b"two")
    assert verify() == (0, "2 files checked, 0 findings\n")


def test_an_empty_storage_is_in_order():
    assert verify() == (0, "0 files checked, 0 findings\n")


def test_missing_and_damaged_files_are_named():
    missing, damaged = store_bytes(b"missing"), store_bytes(b"damaged")
    path_of(missing).unlink()
    path_of(damaged).write_bytes(b"damaGed")
    code, text = verify()
    assert code == 1
    assert f"missing: {missing.storage_name}" in text
    assert f"damaged: {damaged.storage_name}" in text
    assert "2 files checked, 2 findings" in text


def test_what_no_row_speaks_of_is_listed_and_kept():
    path = make_orphan()
    code, text = verify()
    assert code == 1
    assert "orphan: " in text
    assert path.exists()


def test_on_request_it_is_removed():
    path = make_orphan()
    kept = store_bytes(b"kept")
    code, text = verify("--fix-orphans")
    assert (code, path.exists(), path_of(kept).exists()) == (0, False, True)
    assert "removed" in text
    assert verify()[0] == 0


def test_other_findings_still_fail_beside_removed_orphans():
    make_orphan()
    path_of(store_bytes(b"missing")).unlink()
    assert verify("--fix-orphans")[0] == 1


def test_what_is_young_may_belong_to_a_request_that_still_runs():
    make_orphan(modified=time.time())
    assert list(find_orphans()) == []


def test_half_written_files_of_a_crash_are_found_after_a_day():
    blob = store_bytes(b"whole")
    half = path_of(blob).with_name(f".{blob.sha256}.1234")
    half.write_bytes(b"ha")
    os.utime(half, (OLD, OLD))
    assert [Path(finding.name).name for finding in find_orphans()] == [half.name]


def test_an_orphan_that_is_taken_into_use_again_is_left():
    path = make_orphan(b"wanted")
    [finding] = find_orphans()
    store_bytes(b"wanted")
    assert not remove_orphan(finding)
    assert path.exists()


def test_a_file_that_vanishes_meanwhile_is_no_finding():
    assert not remove_orphan(Finding("orphan", "sha256/00/gone"))


def test_rows_are_reported_one_by_one():
    store_bytes(b"one")
    seen = []
    assert list(check_storage(on_blob=lambda: seen.append(1))) == []
    assert seen == [1]
    assert default_storage.exists("sha256")


def test_a_database_without_tables_is_told_in_words(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Blob._meta, "db_table", "no_such_table")
    with pytest.raises(CommandError, match="migrate` first"):
        verify()
