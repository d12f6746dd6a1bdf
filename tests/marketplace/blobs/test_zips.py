from __future__ import annotations

import io
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.test import AsyncRequestFactory, RequestFactory

from marketplace.blobs.models import Blob
from marketplace.blobs.services import DamagedBlob, local_path, store_bytes
from marketplace.blobs.zips import ZipEntry, zip_chunks, zip_length, zip_response

pytestmark = pytest.mark.django_db
FILES = {
    "adapter_config.json": b"{}",
    "adapter_model.safetensors": bytes(range(256)) * 10_000,
    "README.md": "# Café\n".encode(),
    "notes/é.txt": b"",
}


@pytest.fixture
def entries() -> list[ZipEntry]:
    return [ZipEntry(path, store_bytes(content)) for path, content in FILES.items()]


def contents(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.testzip() is None
        return {name: opened.read(name) for name in opened.namelist()}


def test_it_works(entries, rf):
    response: Any = zip_response(rf.get("/"), entries, filename="adapter-v1.zip")
    archive = b"".join(response.streaming_content)
    assert contents(archive) == FILES
    assert response["Content-Length"] == str(len(archive))
    assert response["Content-Type"] == "application/zip"
    assert 'filename="adapter-v1.zip"' in response["Content-Disposition"]
    assert response["X-Content-Type-Options"] == "nosniff"


def test_it_is_the_same_under_asgi(entries):
    async def collect() -> bytes:
        response: Any = zip_response(AsyncRequestFactory().get("/"), entries, filename="a.zip")
        return b"".join([chunk async for chunk in response.streaming_content])

    assert async_to_sync(collect)() == b"".join(zip_chunks(entries))


def test_an_archive_of_nothing_opens():
    archive = b"".join(zip_chunks([]))
    assert contents(archive) == {}
    assert len(archive) == zip_length([])


@pytest.mark.skipif(not shutil.which("unzip"), reason="unzip is not installed")
def test_unzip_opens_it(entries, tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(b"".join(zip_chunks(entries)))
    done = subprocess.run(
        ["unzip", "-q", path, "-d", tmp_path / "out"], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    extracted = (tmp_path / "out" / "adapter_model.safetensors").read_bytes()
    assert extracted == FILES["adapter_model.safetensors"]


def test_the_same_files_give_the_same_archive(entries):
    assert b"".join(zip_chunks(entries)) == b"".join(zip_chunks(entries))


def test_head_tells_the_length(entries):
    response: Any = zip_response(RequestFactory().head("/"), entries, filename="a.zip")
    assert response["Content-Length"] == str(zip_length(entries))
    assert response.content == b""


def test_more_than_the_format_holds_is_refused(rf):
    large = ZipEntry("large", Blob(sha256="0" * 64, size=4 * 1024**3))
    with pytest.raises(ValueError, match="one by one"):
        zip_response(rf.get("/"), [large], filename="a.zip")


def test_changed_bytes_never_make_a_whole_archive(entries):
    path = Path(str(local_path(entries[1].blob)))
    path.write_bytes(b"!" + path.read_bytes()[1:])
    with pytest.raises(DamagedBlob):
        list(zip_chunks(entries))
